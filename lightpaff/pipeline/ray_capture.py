"""Capturing on a Ray cluster: every worker does what `lightpaff targets --shard i/n` does on a machine."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lightpaff.errors import UserError
from lightpaff.recipe import Recipe


def map_parts(capture: Callable[[Recipe, str, str], object], recipe: Recipe, output: Path, workers: int) -> None:
    """Capture in so many workers of the cluster that RAY_ADDRESS names, or of this machine.

    The folder of the runs and the store must be the same for all of them: a shared file system, or a URL for the
    store. Every worker takes as many threads as this process has, and on a GPU one GPU.

    Args:
        capture: does a part, such as "2/4", of a recipe whose run is in a folder.
        recipe: whose teachers are asked.
        output: of the run.
        workers: how many parts there are.

    Raises:
        UserError: Ray is not installed, or what a worker said.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError('--ray: ray is not installed: pip install "lightpaff[ray]"') from error
    threads = torch.get_num_threads()
    ours = {name: value for name, value in os.environ.items() if name in ("HF_HOME", "PYTHONPATH")}
    # Ray gives its workers one thread: other bits than this process would write.
    environment = {"env_vars": {**ours, "OMP_NUM_THREADS": str(threads)}}
    ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level="warning", runtime_env=environment)
    ray.data.DataContext.get_current().enable_progress_bars = False
    needs: dict[str, Any] = {"num_gpus": 1} if torch.cuda.is_available() and recipe.device != "cpu" else {"num_cpus": 1}
    content, folder = recipe.model_dump(mode="json"), str(output.resolve())

    def capture_part(row: dict[str, Any]) -> dict[str, Any]:
        try:
            capture(Recipe.model_validate(content), folder, f"{row['id'] + 1}/{workers}")
        except UserError as error:
            return {"told": str(error)}
        return {"told": ""}

    parts = ray.data.range(workers, override_num_blocks=workers).map(capture_part, concurrency=workers, **needs)
    for said in parts.take_all():
        if said["told"]:
            raise UserError(said["told"])
