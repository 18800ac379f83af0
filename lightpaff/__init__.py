"""Distil a pre-trained language model twice, in pre-training and in fine-tuning (LightPAFF; arXiv 2004.12817).

from lightpaff import Recipe, run
result = run(Recipe.load("my-recipe.yaml"))

import lightpaff
small = lightpaff.distil("reviews.csv", teacher="my-finetuned-bert")
print(small.scores, small("what a lovely film"))
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightpaff.errors import UserError
    from lightpaff.pipeline.run import RunResult, run
    from lightpaff.recipe import Recipe
    from lightpaff.start.distil import Distilled, distil

__all__ = ["Distilled", "Recipe", "RunResult", "UserError", "distil", "run"]

_HOMES = {
    "Distilled": "lightpaff.start.distil",
    "distil": "lightpaff.start.distil",
    "Recipe": "lightpaff.recipe",
    "RunResult": "lightpaff.pipeline.run",
    "UserError": "lightpaff.errors",
    "run": "lightpaff.pipeline.run",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: `import lightpaff` and `lightpaff --help` need no torch.
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'lightpaff' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
