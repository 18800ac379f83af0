"""Studies of the tiny recipe."""

from pathlib import Path
from typing import Any

import yaml

from lightpaff.study.definition import Study, load_study

SILENT = {"pretraining.distillation.weight": 0, "fine_tuning.distillation.weight": 0}


def study_of(recipe: Any, arms: dict[str, Any], **keys: Any) -> Study:
    path: Path = recipe.folder / "study.yaml"
    content = {"name": "toy", "arms": arms, "baseline": next(iter(arms)), "seeds": [1], **keys}
    path.write_text(yaml.safe_dump({**content, "recipe": str(recipe.write())}, sort_keys=False))
    return load_study(path)
