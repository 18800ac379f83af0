"""Which of asking live and asking once asks the teacher less; and about what it must be asked then."""

from typing import Any

import numpy as np
import pytest

from lightpaff.data.batch_order import BatchOrder
from lightpaff.pipeline.budget import epochs_of, seen_ids
from lightpaff.pipeline.target_choice import choose_targets
from lightpaff.recipe_training import Distillation, Training


class Lengths:
    """As much of an objective as counts."""

    head, number_of_classes = "masked_tokens", 7

    def __init__(self, count: int) -> None:
        self.lengths_N = np.arange(count) % 9 + 3
        self.targets_N = self.gold_targets_N = np.ones(count, dtype=np.int64)
        self.gold_ids = np.arange(count)

    def batch(self, example_ids: np.ndarray, draw: int) -> Any:
        raise NotImplementedError


def distillation(**targets: Any) -> Distillation:
    return Distillation.model_validate({"weight": 0.5, "targets": targets})


@pytest.mark.parametrize(
    ("own", "everyone", "anew", "kind", "epochs", "draws"),
    [
        # One student, one epoch: there is nothing to save.
        (1.0, 1.0, True, "live", 1.0, None),
        # 20 epochs over 4 maskings.
        (20.0, 20.0, True, "sampled", 4.0, 4),
        # 4 epochs have 4 maskings; three students share them.
        (4.0, 4.0, True, "live", 4.0, None),
        (4.0, 12.0, True, "sampled", 4.0, 4),
        # Nothing is masked: once is enough.
        (2.0, 2.0, False, "sampled", 1.0, None),
        (1.5, 1.5, False, "live", 1.5, None),
        (0.5, 1.5, False, "sampled", 0.5, None),
    ],
)
def test_auto_is_the_cheaper_one(
    own: float, everyone: float, anew: bool, kind: str, epochs: float, draws: int | None
) -> None:
    # What is chosen where the recipe says nothing.
    choice = choose_targets(distillation(), own, everyone, draws_anew=anew)
    assert (choice.kind, choice.epochs, choice.draws) == (kind, epochs, draws)
    assert "epochs in place of" in choice.why


def test_what_the_recipe_says_is_done() -> None:
    assert choose_targets(distillation(kind="live"), 20.0, 20.0, draws_anew=True).kind == "live"
    asked = choose_targets(distillation(kind="top-k", epochs=3), 2.5, 2.5, draws_anew=True)
    assert (asked.kind, asked.epochs, asked.draws) == ("top-k", 2.5, 3)
    other = Distillation.model_validate({"weight": 0.5, "divergence": "reverse_kl", "targets": {"kind": "auto"}})
    assert choose_targets(other, 20.0, 20.0, draws_anew=True).kind == "live"
    # Either of two texts may be a target: both are asked about.
    assert choose_targets(distillation(kind="auto"), 3.0, 3.0, draws_anew=False, variants=2).kind == "live"


def test_the_encoding_is_the_recipe_s() -> None:
    told = Distillation.model_validate(
        {"weight": 0.5, "temperature": 2.0, "targets": {"kind": "sampled", "draws": 5, "proposal": 1.5}}
    )
    encoding = choose_targets(told, 9.0, 9.0, draws_anew=True).encoding(told, 7)
    assert (encoding.kind, encoding.stored, encoding.temperature, encoding.proposal) == ("sampled", 5, 2.0, 1.5)
    few = distillation(kind="top-k", draws=50)
    assert choose_targets(few, 9.0, 9.0, draws_anew=True).encoding(few, 7).stored == 7


@pytest.mark.parametrize(("steps", "draws"), [(3, None), (3, 2), (10, 2), (25, 2), (25, 4), (100, 3)])
def test_every_batch_of_every_seed_was_asked_about(steps: int, draws: int | None) -> None:
    data, ids = Lengths(40), np.arange(3, 38)
    training, seeds = Training(steps=steps, batch_size=4, learning_rate=0.1), [0, 5]
    asked = seen_ids(data, ids, training, seeds, draws)
    assert len(asked) == (draws or 1)
    seen: list[set[int]] = [set() for _ in asked]
    for seed in seeds:
        order = BatchOrder(data.lengths_N, ids, 4, training.micro_batch_tokens, seed)
        for step in range(steps):
            epoch, pieces = order.micro_batches(step)
            seen[epoch % len(asked)] |= set(np.concatenate(pieces).tolist())
    assert [set(own.tolist()) for own in asked] == seen
    assert epochs_of(training, data, ids) == pytest.approx(steps / 9)
