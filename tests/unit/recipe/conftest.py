"""A recipe as short as one can be, and its file."""

from pathlib import Path
from typing import Any

import pytest
import yaml

CONTENT: dict[str, Any] = {
    "name": "tiny",
    "teacher": {"source": "owner/model"},
    "student": {"layers": 2},
    "pretraining": {"corpus": ["corpus.txt"], "training": {"steps": 4, "learning_rate": 1e-3}},
    "tasks": [{"name": "sentiment", "train": "train.jsonl", "validation": "validation.jsonl"}],
    "fine_tuning": {"training": {"epochs": 1, "learning_rate": 1e-3}},
}


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(CONTENT))
    return path
