"""Shapes: B examples, S tokens, P target positions."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightpaff.data.token_table import TokenTable, write_token_table
from lightpaff.objectives.mlm import MaskedLanguageModelling

PAD, UNKNOWN, CLS, SEP, MASK = range(5)
VOCABULARY = 60
LENGTHS = [3, 12, 30, 7, 30, 22, 2, 18]
MakeObjective = Callable[..., MaskedLanguageModelling]


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> TokenTable:
    """[CLS] text [SEP]; special tokens stand inside too, and the sixth row is nothing but its frame."""
    random = np.random.default_rng(0)
    rows = [[CLS, *random.integers(5, VOCABULARY, size=length - 2).tolist(), SEP] for length in LENGTHS]
    rows[2][10], rows[4][20], rows[5][3] = SEP, UNKNOWN, SEP
    path = tmp_path_factory.mktemp("tables") / "rows.arrow"
    write_token_table(path, [{"input_ids": rows[:5]}, {"input_ids": rows[5:]}], {})
    return TokenTable(path)


@pytest.fixture(scope="module")
def make(sequences: TokenTable) -> MakeObjective:
    def make_objective(mask_rate: float = 0.3, seed: int = 0, rows: TokenTable = sequences) -> MaskedLanguageModelling:
        return MaskedLanguageModelling(
            rows,
            special_ids=[MASK, CLS, SEP, UNKNOWN, PAD],
            mask_id=MASK,
            padding_id=PAD,
            number_of_classes=VOCABULARY,
            mask_rate=mask_rate,
            seed=seed,
        )

    return make_objective


SOME_ROWS = st.lists(st.integers(0, len(LENGTHS) - 1), min_size=1, max_size=8, unique=True).map(np.array)
RATES = st.floats(0.01, 0.99)


@given(ids=SOME_ROWS, draw=st.integers(0, 2**31), rate=RATES)
@settings(deadline=None)
def test_targets_labels_and_inputs(
    make: MakeObjective, sequences: TokenTable, ids: np.ndarray, draw: int, rate: float
) -> None:
    batch = make(rate).batch(ids, draw)
    ids_BS = batch.inputs["input_ids"]
    originals_BS = torch.zeros_like(ids_BS)
    for row, example_id in enumerate(ids):
        tokens = torch.from_numpy(sequences.tokens(int(example_id)).astype(np.int64))
        originals_BS[row, : len(tokens)] = tokens
    positions = batch.positions_P.tolist()
    assert positions == sorted(set(positions))
    assert torch.equal(batch.labels_P, originals_BS.flatten()[batch.positions_P])
    # Nothing else has changed, special tokens are no targets and are not drawn; only the mask is put in.
    untouched = torch.ones(ids_BS.numel(), dtype=torch.bool)
    untouched[batch.positions_P] = False
    assert torch.equal(ids_BS.flatten()[untouched], originals_BS.flatten()[untouched])
    assert (batch.labels_P >= 5).all()
    seen_P = ids_BS.flatten()[batch.positions_P]
    assert ((seen_P == MASK) | (seen_P >= 5)).all()
    assert (seen_P < VOCABULARY).all()
    assert batch.example_ids_B.tolist() == ids.tolist()
    assert batch.draw == draw
    # As many as the share says, at least one, where there is any token to predict.
    for row in range(len(ids)):
        ordinary = int((originals_BS[row] >= 5).sum())
        width = ids_BS.shape[1]
        count = sum(row * width <= position < (row + 1) * width for position in positions)
        assert count == (max(1, round(rate * ordinary)) if ordinary else 0)


@given(ids=SOME_ROWS, draw=st.integers(0, 2**31))
@settings(deadline=None)
def test_an_example_is_masked_alike_in_any_batch(make: MakeObjective, ids: np.ndarray, draw: int) -> None:
    together = make().batch(ids, draw)
    ids_BS, width = together.inputs["input_ids"], together.inputs["input_ids"].shape[1]
    for row, example_id in enumerate(ids):
        alone = make().batch(np.array([example_id]), draw)
        length = LENGTHS[example_id]
        assert torch.equal(ids_BS[row, :length], alone.inputs["input_ids"][0])
        is_here = (together.positions_P // width) == row
        assert torch.equal(together.positions_P[is_here] % width, alone.positions_P)
        assert torch.equal(together.labels_P[is_here], alone.labels_P)


def test_draws_and_seeds_mask_differently(make: MakeObjective) -> None:
    ids = np.arange(len(LENGTHS))
    inputs = [make(seed=seed).batch(ids, draw).inputs["input_ids"] for seed in (0, 1) for draw in (0, 1)]
    for first in range(4):
        for second in range(first):
            assert not torch.equal(inputs[first], inputs[second])


def test_the_draw_does_not_change_the_data(make: MakeObjective, sequences: TokenTable) -> None:
    before = [sequences.tokens(row).copy() for row in range(len(sequences))]
    make(0.99).batch(np.arange(len(LENGTHS)), 0)
    assert all(np.array_equal(sequences.tokens(row), tokens) for row, tokens in enumerate(before))


def within(count: int, total: int, share: float) -> bool:
    """Five standard deviations of a binomial: fails by chance once in a million."""
    return abs(count - total * share) < 5 * math.sqrt(total * share * (1 - share))


def test_eighty_ten_ten(make: MakeObjective) -> None:
    objective, ids = make(0.5), np.array([2, 4])
    masked, kept, total = 0, 0, 0
    random_tokens: list[int] = []
    targets = np.zeros(60, dtype=int)
    draws = 400
    for draw in range(draws):
        batch = objective.batch(ids, draw)
        seen_P = batch.inputs["input_ids"].flatten()[batch.positions_P]
        targets[batch.positions_P.numpy()] += 1
        masked += int((seen_P == MASK).sum())
        kept += int((seen_P == batch.labels_P).sum())
        random_tokens += seen_P[(seen_P != MASK) & (seen_P != batch.labels_P)].tolist()
        total += len(seen_P)
    chance = 1 / (VOCABULARY - 5)  # that the random token is the one that stood there
    assert within(masked, total, 0.8)
    assert within(kept, total, 0.1 + 0.1 * chance)
    assert within(len(random_tokens), total, 0.1 * (1 - chance))
    # Every ordinary token is drawn, the first and the last too.
    assert set(random_tokens) == set(range(5, VOCABULARY))
    # Every place is a target about as often as any other: 27 candidates a row, of which round(13.5) = 14.
    ordinary = targets[targets > 0]
    assert len(ordinary) == 54
    assert all(within(int(count), draws, 14 / 27) for count in ordinary)


def test_a_sequence_of_special_tokens_has_no_target(make: MakeObjective) -> None:
    batch = make().batch(np.array([6]), 0)
    assert len(batch.positions_P) == len(batch.labels_P) == 0
    assert batch.inputs["input_ids"].tolist() == [[CLS, SEP]]


def test_what_the_loop_asks_for(make: MakeObjective) -> None:
    objective = make()
    assert objective.lengths_N.tolist() == LENGTHS
    assert (objective.head, objective.number_of_classes) == ("masked_tokens", VOCABULARY)


@pytest.mark.parametrize("name", ["positions_P", "labels_P", "example_ids_B"])
def test_types(make: MakeObjective, name: str, tmp_path: Path) -> None:
    assert getattr(make().batch(np.arange(3, dtype=np.int32), 0), name).dtype == torch.int64
