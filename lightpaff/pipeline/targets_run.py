"""Capturing a recipe's soft targets by themselves: on one machine, or each of many its part."""

from dataclasses import dataclass

from rich.console import Console

from lightpaff.errors import UserError
from lightpaff.pipeline.build import Graph, in_order
from lightpaff.pipeline.capture_steps import Captured
from lightpaff.pipeline.graph import run_step
from lightpaff.pipeline.ray_capture import map_parts
from lightpaff.pipeline.run import default_output, open_context, prepare
from lightpaff.recipe import Recipe
from lightpaff.targets.store import TargetStore


@dataclass(frozen=True)
class CapturedTargets:
    """What was captured; no store where other parts are still to come."""

    name: str
    url: str
    store: TargetStore | None


def parse_shard(shard: str | None) -> tuple[int, int]:
    """`2/4` is the second of four parts: (1, 4).

    Raises:
        UserError: it is none.
    """
    if shard is None:
        return 0, 1
    number, _, count = shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f"--shard: '{shard}' is no part; give 1/4 for the first of four, 4/4 for the last")
    return int(number) - 1, int(count)


def capture_targets(
    recipe: Recipe, output: str | None = None, shard: str | None = None, ray_workers: int | None = None
) -> list[CapturedTargets]:
    """Capture what the recipe's students learn from; trains their teachers first where the recipe says so.

    Args:
        recipe: see `Recipe.load`.
        output: of the run that will use it; the store is beside it unless the recipe says where.
        shard: `2/4` captures the second of four parts.
        ray_workers: so many workers of a Ray cluster capture, each a part; this process finishes.

    Raises:
        UserError: for bad input, or where every teacher is asked live.
    """
    part = parse_shard(shard)
    if shard is not None and ray_workers is not None:
        raise UserError("--shard and --ray: give one of them; with Ray every worker has its part already")
    directory = default_output(recipe, output)
    context = open_context(recipe, directory)
    graph, _ = prepare(context, [])
    captures = _captures_of(graph)
    if not captures:
        why = next((one.targets.why for one in graph.trainings if one.targets is not None), "no student hears one")
        raise UserError(
            f"{recipe.name}: every teacher is asked live ({why}); set pretraining.distillation.targets.kind or "
            "fine_tuning.distillation.targets.kind to sampled"
        )
    steps = [captured.step for captured in captures]
    for needed in in_order(steps):
        if needed not in steps:
            run_step(needed)
    if ray_workers is not None:
        map_parts(capture_targets, recipe, directory, ray_workers)
    found = []
    for captured, step in zip(captures, steps, strict=True):
        is_whole = captured.work(step.name, part)
        if is_whole:
            run_step(step)
        found.append(CapturedTargets(step.name, captured.url, captured.store() if is_whole else None))
    return found


def print_captured(found: list[CapturedTargets], console: Console) -> None:
    """Say where the soft targets are, and how large."""
    for one in found:
        if one.store is None:
            console.print(f"{one.url}: this part is there; when all are, run the same without --shard to finish")
            continue
        size = sum(shard.bytes for shard in one.store.shards)
        console.print(
            f"{one.url}: {one.store.positions:,} positions of {one.store.draws} {_maskings(one.store.draws)} in "
            f"{len(one.store.shards)} shards, {size / 1e6:.1f} MB, {size / max(one.store.positions, 1):.1f} bytes each"
        )


def _maskings(count: int) -> str:
    return "masking" if count == 1 else "maskings"


def _captures_of(graph: Graph) -> list[Captured]:
    """Each once, in the order of the trainings."""
    captures: dict[str, Captured] = {}
    for training in graph.trainings:
        if training.supervision is not None and training.supervision.captured is not None:
            captured = training.supervision.captured
            captures.setdefault(captured.step.fingerprint, captured)
    return list(captures.values())
