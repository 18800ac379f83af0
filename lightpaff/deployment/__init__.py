"""Exported models: made from a student, checked, measured, and used without torch.

from lightpaff.deployment import load

classify = load("exports/onnx-int8")
print(classify("a film that is neither bright nor warm"))
"""

from lightpaff.deployment.loading import load

__all__ = ["load"]
