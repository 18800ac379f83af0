"""Capturing in the workers of a Ray cluster gives the bytes of one process."""

from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.needs("ray"), pytest.mark.filterwarnings("ignore:::ray")]


def files_of(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*.*") if path.is_file()}


def test_ray_captures_the_same_bytes(tiny_recipe: Any, run_cli: Any, tmp_path: Path) -> None:
    # Two maskings: a part for each worker.
    tiny_recipe.set("pretraining.training.steps", 40)
    stores = {name: tmp_path / name for name in ("alone", "ray")}
    for name, options in (("alone", []), ("ray", ["--ray", "2"])):
        tiny_recipe.set(
            "pretraining.distillation", {"targets": {"kind": "sampled", "epochs": 2, "store": str(stores[name])}}
        )
        told = run_cli("targets", tiny_recipe.write(), "--output", tiny_recipe.output, *options)
        assert told.code == 0, told.stderr
    assert len(files_of(stores["alone"])) > 2
    assert files_of(stores["ray"]) == files_of(stores["alone"])


def test_a_worker_s_error_is_told_in_a_line(tiny_recipe: Any, run_cli: Any, tmp_path: Path) -> None:
    told = run_cli("targets", tiny_recipe.write(), "--ray", "2", "--shard", "1/2")
    assert told.code == 2
    assert "give one of them" in told.stderr
