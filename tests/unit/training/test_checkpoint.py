from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lightpaff.errors import UserError
from lightpaff.recipe_training import Training
from lightpaff.training.checkpoint import (
    Progress,
    load_checkpoint,
    load_weights,
    optimiser_tensors,
    save_checkpoint,
    weights_of,
)
from lightpaff.training.optimiser import create_optimiser

SETTINGS = Training(steps=1, learning_rate=0.1)


class Tied(nn.Module):
    """A parameter under two names, a buffer of whole numbers, a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 3)
        self.norm = nn.LayerNorm(3)
        self.head = nn.Linear(3, 7)
        self.head.weight = self.embedding.weight
        self.register_buffer("positions", torch.arange(5))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.norm(self.embedding(ids)))
        return logits


def take_steps(model: Tied, optimiser: torch.optim.Optimizer, count: int) -> None:
    for number in range(count):
        model(torch.tensor([number % 7, 3])).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()


def save(
    directory: Path, model: Tied, optimiser: torch.optim.Optimizer, best: dict[str, torch.Tensor], progress: Progress
) -> None:
    tensors = weights_of(model), optimiser_tensors(model, optimiser)
    save_checkpoint(directory, "this one", *tensors, best, progress)


@pytest.fixture
def trained() -> tuple[Tied, torch.optim.Optimizer]:
    model = Tied()
    optimiser = create_optimiser(model, SETTINGS)
    take_steps(model, optimiser, 3)
    return model, optimiser


PROGRESS = Progress(
    step=3,
    best_score=0.1 + 0.2,
    best_step=2,
    seconds=1.5,
    targets=12,
    tokens=34,
    history=[{"step": 1, "loss": 1 / 3}],
    evaluations=[{"step": 2, "score": 0.1 + 0.2}],
    running={"total": 1e-17},
)


def test_tied_weights_are_kept_once(trained: tuple[Tied, torch.optim.Optimizer]) -> None:
    weights = weights_of(trained[0])
    assert set(weights) == {"embedding.weight", "norm.weight", "norm.bias", "head.bias", "positions"}
    assert weights["positions"].dtype == torch.int64


def test_weights_are_a_copy(trained: tuple[Tied, torch.optim.Optimizer]) -> None:
    model, optimiser = trained
    weights = weights_of(model)
    before = weights["embedding.weight"].clone()
    take_steps(model, optimiser, 1)
    assert torch.equal(weights["embedding.weight"], before)
    load_weights(model, weights)
    assert torch.equal(model.embedding.weight, before)
    assert model.head.weight is model.embedding.weight


@pytest.mark.parametrize("has_best", [True, False])
def test_everything_comes_back_exactly(
    trained: tuple[Tied, torch.optim.Optimizer], has_best: bool, tmp_path: Path
) -> None:
    model, optimiser = trained
    best = weights_of(Tied()) if has_best else {}
    save(tmp_path, model, optimiser, best, PROGRESS)
    other = Tied()
    other_optimiser = create_optimiser(other, SETTINGS)
    restored = load_checkpoint(tmp_path, "this one", other, other_optimiser)
    assert restored is not None
    progress, other_best = restored
    assert progress == PROGRESS
    assert other_best.keys() == best.keys()
    assert all(torch.equal(tensor, other_best[name]) for name, tensor in best.items())
    # The optimiser's moments too: the steps after it are the same to the last bit.
    take_steps(model, optimiser, 3)
    take_steps(other, other_optimiser, 3)
    weights, other_weights = weights_of(model), weights_of(other)
    assert all(torch.equal(tensor, other_weights[name]) for name, tensor in weights.items())


def test_without_the_moments_the_next_steps_differ(trained: tuple[Tied, torch.optim.Optimizer]) -> None:
    model, optimiser = trained
    other = Tied()
    load_weights(other, weights_of(model))
    take_steps(model, optimiser, 1)
    take_steps(other, create_optimiser(other, SETTINGS), 1)
    assert not torch.equal(model.embedding.weight, other.embedding.weight)


def test_only_the_newest_is_kept(trained: tuple[Tied, torch.optim.Optimizer], tmp_path: Path) -> None:
    model, optimiser = trained
    (tmp_path / ".step-000000001.abc.part").mkdir()
    for step in (1, 2, 10):
        save(tmp_path, model, optimiser, {}, Progress(step=step))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000010"]
    restored = load_checkpoint(tmp_path, "this one", model, optimiser)
    assert restored is not None
    assert restored[0].step == 10


def test_the_newest_wins_where_a_kill_left_two(trained: tuple[Tied, torch.optim.Optimizer], tmp_path: Path) -> None:
    model, optimiser = trained
    save(tmp_path / "a", model, optimiser, {}, Progress(step=9))
    save(tmp_path / "b", model, optimiser, {}, Progress(step=10))
    (tmp_path / "a" / "step-000000009").rename(tmp_path / "b" / "step-000000009")
    (tmp_path / "b" / ".step-000000011.abc.part").mkdir()
    restored = load_checkpoint(tmp_path / "b", "this one", model, optimiser)
    assert restored is not None
    assert restored[0].step == 10


def test_nothing_to_restore(trained: tuple[Tied, torch.optim.Optimizer], tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, "this one", *trained) is None
    assert load_checkpoint(tmp_path / "absent", "this one", *trained) is None


def test_another_fingerprint_is_refused(trained: tuple[Tied, torch.optim.Optimizer], tmp_path: Path) -> None:
    save(tmp_path, *trained, {}, PROGRESS)
    with pytest.raises(UserError, match=r"is a checkpoint of another step or recipe; delete .* and run again"):
        load_checkpoint(tmp_path, "another one", *trained)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        *(
            (lambda path, name=name: cut(path / name), "does not match its manifest")
            for name in ("model.safetensors", "optimiser.safetensors", "best.safetensors", "state.json")
        ),
        (lambda path: (path / "optimiser.safetensors").unlink(), "is missing though the manifest names it"),
        (lambda path: (path / "manifest.json").unlink(), "has no manifest.json, so it is incomplete"),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    trained: tuple[Tied, torch.optim.Optimizer], tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    save(tmp_path, *trained, {}, PROGRESS)
    damage(tmp_path / "step-000000003")
    other = Tied()
    before = weights_of(other)
    with pytest.raises(UserError, match=message):
        load_checkpoint(tmp_path, "this one", other, create_optimiser(other, SETTINGS))
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights_of(other).items())
