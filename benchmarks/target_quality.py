"""What a student learns from live, drawn and cut soft targets, at equal steps: validation loss and score, by seed.

    python benchmarks/target_quality.py benchmarks/quality/clm.yaml --output runs/quality
    python benchmarks/target_quality.py ... --json       # its rows as JSON lines

The recipe's teacher is made once. Then both stages are run with every seed, for each kind of soft targets, and without
any; the student starts from the seed's random weights. "top-k without the rest" makes the kept probabilities sum to 1,
as most tools do, and is no option of the product: here its reader is changed. A stopped program goes on.
"""

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lightpaff.pipeline.run import RunResult, run
from lightpaff.recipe import Recipe
from lightpaff.targets import encodings
from lightpaff.targets.soft_targets import Sparse

KINDS: dict[str, dict[str, Any]] = {
    "sampled 12": {"kind": "sampled", "draws": 12},
    "sampled 50": {"kind": "sampled", "draws": 50},
    "top-k 12": {"kind": "top-k", "draws": 12},
}
NO_REST = "top-k 12 without the rest"
STAGES = ("pretraining", "fine_tuning")


@dataclass(frozen=True)
class Row:
    """One model's figures with one seed."""

    name: str
    seed: int
    pretraining_loss: float
    """On held-out text, nats a target, the lowest of its evaluations."""
    fine_tuning_loss: float | None
    """Likewise, of language models."""
    metric: str
    score: float
    """Of the test rows."""


def arms_of(kinds: dict[str, dict[str, Any]], fine_tuning_is_whole: bool) -> dict[str, dict[str, Any]]:
    """An arm for each kind of soft targets. Tasks with few classes always keep them all."""
    stages = STAGES[:1] if fine_tuning_is_whole else STAGES
    return {name: {f"{stage}.distillation.targets": kind for stage in stages} for name, kind in kinds.items()}


def decode_without_rest(encoding: encodings.Encoding, arrays: encodings.Arrays) -> Sparse:
    """The kept classes as if there were no others."""
    weights_PK = torch.from_numpy(arrays["probabilities"]).float()
    weights_PK /= weights_PK.sum(1, keepdim=True)
    entropy_P = -torch.special.xlogy(weights_PK, weights_PK).sum(1)
    ids_PK = torch.from_numpy(encodings.unpack_classes(arrays["classes"]))
    return Sparse(ids_PK, weights_PK, None, entropy_P, encoding.temperature)


def make_teacher(recipe: Recipe, output: Path) -> dict[str, Any]:
    """Train the teacher, with a student that takes a step, and return the keys that say where it is."""
    content = recipe.model_dump()
    for section in (content["pretraining"], content["fine_tuning"]):
        section["training"] |= {"steps": 1, "tokens": None, "epochs": None}
    content["control"] = False
    run(Recipe.model_validate(content), output / "teacher")
    steps = json.loads((output / "teacher" / "run.json").read_text())["steps"]
    folders = {name: output / "steps" / folder / "model" for name, folder in steps.items()}
    task = next(name for name in folders if name.startswith("fine-tune the teacher"))
    return {"source": str(folders["pre-train the teacher"].resolve()), "task": str(folders[task].resolve())}


def with_teacher(recipe: Recipe, teacher: dict[str, Any], seed: int, arms: dict[str, dict[str, Any]]) -> Recipe:
    """The recipe with a ready-made teacher, another seed and these arms."""
    content = recipe.model_dump()
    content["teacher"] = {"source": teacher["source"]}
    content["tasks"][0]["teacher"] = teacher["task"]
    content["seeds"] = {"pretraining": seed, "fine_tuning": [seed]}
    content["arms"] = arms
    return Recipe.model_validate(content)


def rows_of(result: RunResult | None, seed: int, names: dict[str, str]) -> Iterator[Row]:
    """The figures of a run's arms, under the names given here."""
    assert result is not None, "one process, no ranks"
    report = result.report
    facts = report.tasks[0]
    for arm, name in names.items():
        losses: dict[str, list[float]] = {"pre-training": [], "fine-tuning": []}
        for curve in report.curves:
            if curve.arm == arm:
                losses[curve.stage] += [point.value for point in curve.validation if point.metric == "nll"]
        score = next(
            row.value for row in report.rows if (row.arm, row.split, row.metric) == (arm, facts.split, facts.metric)
        )
        tuned = min(losses["fine-tuning"], default=None)
        yield Row(name, seed, min(losses["pre-training"]), tuned, facts.metric, score)


def measure(recipe: Recipe, seeds: list[int], output: Path) -> Iterator[Row]:
    """Every kind with every seed."""
    teacher = make_teacher(recipe, output)
    is_whole = recipe.tasks[0].objective in ("classify", "regress", "tag", "answer")
    for seed in seeds:
        arms = arms_of(KINDS, is_whole)
        result = run(with_teacher(recipe, teacher, seed, arms), output / f"seed-{seed}")
        yield from rows_of(result, seed, {"student": "live", **{name: name for name in KINDS}, "control": "none"})
        # A place of its own, so that its trainings are not taken for those above.
        kind = {**KINDS["top-k 12"], "store": str(output / "without-the-rest" / str(seed))}
        coder = encodings.ENCODINGS["top-k"]
        encodings.ENCODINGS["top-k"] = dataclasses.replace(coder, decode=decode_without_rest)
        try:
            arms = arms_of({NO_REST: kind}, is_whole)
            result = run(with_teacher(recipe, teacher, seed, arms), output / f"seed-{seed}-without")
        finally:
            encodings.ENCODINGS["top-k"] = coder
        yield from rows_of(result, seed, {NO_REST: NO_REST})


def print_table(rows: list[Row]) -> None:
    """Means and standard deviations over the seeds; differences to the live teacher are of the same seed."""
    live = {row.seed: row for row in rows if row.name == "live"}
    print(f"| soft targets | pre-training loss | minus live | fine-tuning loss | {rows[0].metric} | minus live |")
    print("|---|---|---|---|---|---|")
    for name in dict.fromkeys(row.name for row in rows):
        own = [row for row in rows if row.name == name]
        cells = [
            _spread([row.pretraining_loss for row in own]),
            _spread([row.pretraining_loss - live[row.seed].pretraining_loss for row in own], "+"),
            _spread([row.fine_tuning_loss for row in own if row.fine_tuning_loss is not None]),
            _spread([row.score for row in own]),
            _spread([row.score - live[row.seed].score for row in own], "+"),
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def _spread(values: list[float], sign: str = "") -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.4f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as lightpaff run takes it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    recipe = Recipe.load(options.recipe, options.set)
    output = options.output / recipe.name
    rows = list(measure(recipe, options.seeds, output))
    if options.json:
        for row in rows:
            print(json.dumps(asdict(row)), file=sys.stdout)
    else:
        print_table(rows)


if __name__ == "__main__":
    main()
