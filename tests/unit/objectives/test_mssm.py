"""Shapes: B examples, S tokens of the encoder, T tokens of the decoder, P target positions."""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lightpaff.data.corpus import TokenisedText
from lightpaff.data.token_table import TokenTable, write_token_table
from lightpaff.errors import UserError
from lightpaff.objectives.batch import Batch
from lightpaff.objectives.mssm import MaskedSequenceToSequence, arrange, find_mask_id, open_corpus
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.recipe_sections import Pretraining

PAD, START, END, UNKNOWN, MASK, ENGLISH, GERMAN = range(7)
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "<en>", "<de>"]
FIRST_WORD, VOCABULARY = 7, 60
LONGEST = 20
"""The sequence length."""


def make_tokenizer(**special: Any) -> PreTrainedTokenizerFast:
    tokens = SPECIAL + [f"word{number}" for number in range(FIRST_WORD, VOCABULARY)]
    backend = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **{**names, "mask_token": "<mask>", "additional_special_tokens": SPECIAL[5:], **special},
    )


VOCABULARY_OF_TESTS = Vocabulary(make_tokenizer(), VOCABULARY, decoder_start_id=START)


def make_pretraining(ratio: float = 0.5) -> Pretraining:
    training = {"steps": 1, "learning_rate": 1e-3}
    return Pretraining.model_validate(
        {
            "objective": "mssm",
            "corpus": ["c.txt"],
            "sequence_length": LONGEST,
            "fragment_ratio": ratio,
            "training": training,
        }
    )


def make_texts() -> list[TokenisedText]:
    """Of all lengths up to a row's; every second is English, every third German; two have unknown words inside."""
    random = np.random.default_rng(0)
    texts = [
        TokenisedText(
            random.integers(FIRST_WORD, VOCABULARY, size=length).tolist(),
            "en" if length % 2 == 0 else "de" if length % 3 == 0 else None,
        )
        for length in range(1, LONGEST - 1)
    ]
    texts[9].ids[4] = texts[9].ids[5] = texts[12].ids[0] = UNKNOWN
    return texts


def write(texts: list[TokenisedText], path: Path) -> Counter[str]:
    arrangement = arrange(make_pretraining(), VOCABULARY_OF_TESTS)
    facts: Counter[str] = Counter()
    rows = list(arrangement.lay_out(iter(texts), facts))
    batches = [{name: [row[name] for row in rows] for name in ("input_ids", *arrangement.columns)}]
    write_token_table(path, batches, arrangement.columns)
    return facts


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "rows.arrow"
    write(make_texts(), path)
    return path


MakeObjective = Callable[..., MaskedSequenceToSequence]


@pytest.fixture(scope="module")
def make(corpus: Path) -> MakeObjective:
    def make_objective(ratio: float = 0.5, seed: int = 0, path: Path = corpus) -> MaskedSequenceToSequence:
        return open_corpus(path, make_pretraining(ratio), VOCABULARY_OF_TESTS, seed)

    return make_objective


def test_texts_become_rows(tmp_path: Path) -> None:
    words = list(range(FIRST_WORD, FIRST_WORD + 40))
    texts = [
        TokenisedText(words, None),
        TokenisedText(words, "de"),
        TokenisedText([UNKNOWN, UNKNOWN], "en"),
        TokenisedText([], None),
        TokenisedText([UNKNOWN, 9], "en"),
    ]
    facts = write(texts, tmp_path / "rows.arrow")
    table = TokenTable(tmp_path / "rows.arrow")
    rows = [table.tokens(row).tolist() for row in range(len(table))]
    pieces = [*(words[:19], words[19:38], words[38:]), *(words[:18], words[18:36], words[36:]), [UNKNOWN, 9]]
    assert rows == [[*piece, END] for piece in pieces]
    assert table.column("language_id") == [-1, -1, -1, GERMAN, GERMAN, GERMAN, ENGLISH]
    assert facts == {"tokens": 84, "texts cut into several": 2, "pieces without an ordinary token, dropped": 1}


def row_of(batch: Batch, row: int) -> dict[str, list[int]]:
    """One example of a batch without padding, and its targets as places in the decoder's input."""
    inputs = batch.inputs
    width = inputs["decoder_input_ids"].shape[1]
    is_here = batch.positions_P // width == row
    is_read, is_written = inputs["attention_mask"][row].bool(), inputs["decoder_attention_mask"][row].bool()
    assert not inputs["decoder_position_ids"][row][~is_written].any()
    assert (inputs["decoder_input_ids"][row][~is_written] == PAD).all()
    return {
        "source": inputs["input_ids"][row][is_read].tolist(),
        "decoder": inputs["decoder_input_ids"][row][is_written].tolist(),
        "positions": inputs["decoder_position_ids"][row][is_written].tolist(),
        "targets": (batch.positions_P[is_here] % width).tolist(),
        "labels": batch.labels_P[is_here].tolist(),
    }


TEXTS = make_texts()
SOME_ROWS = st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=6, unique=True).map(np.array)


@given(ids=SOME_ROWS, draw=st.integers(0, 2**31), ratio=st.floats(0, 1))
@settings(deadline=None)
def test_fragments(make: MakeObjective, ids: np.ndarray, draw: int, ratio: float) -> None:
    objective = make(ratio)
    batch = objective.batch(ids, draw)
    for number, example_id in enumerate(ids):
        text, row = TEXTS[example_id], row_of(batch, number)
        language = {"en": [ENGLISH], "de": [GERMAN], None: []}[text.language]
        whole = [*text.ids, END]
        full_input = [*(language or [START]), *whole[:-1]]
        # Contiguous, at the original places, from the token before the fragment on.
        first, length = row["positions"][0], len(row["positions"])
        assert row["positions"] == list(range(first, first + length))
        assert row["decoder"] == full_input[first : first + length]
        # All of the fragment is predicted, but for special tokens inside.
        places = [first + place for place in row["targets"]]
        assert places == [place for place in row["positions"] if whole[place] >= FIRST_WORD]
        assert row["labels"] == [whole[place] for place in places]
        assert (places[0], places[-1]) == (first, first + length - 1)
        ordinary = sum(token >= FIRST_WORD for token in text.ids)
        assert len(places) == max(1, round(ratio * ordinary)) == objective.targets_N[example_id]
        # The encoder sees everything else as it is.
        seen = row["source"][len(language) :]
        assert row["source"][: len(language)] == language
        assert [token for place, token in enumerate(seen) if place not in places] == [
            token for place, token in enumerate(whole) if place not in places
        ]
        assert all(seen[place] == MASK or seen[place] >= FIRST_WORD for place in places)
        assert objective.lengths_N[example_id] == len(row["source"]) + len(places)
    width = max(objective.targets_N[ids].max(), 1)
    assert batch.inputs["decoder_input_ids"].shape[1] <= width + 2  # two unknown words may lie in between


@given(ids=SOME_ROWS, draw=st.integers(0, 2**31))
@settings(deadline=None)
def test_an_example_has_one_fragment_in_any_batch(make: MakeObjective, ids: np.ndarray, draw: int) -> None:
    together = make().batch(ids, draw)
    for number, example_id in enumerate(ids):
        assert row_of(together, number) == row_of(make().batch(np.array([example_id]), draw), 0)


def test_draws_and_seeds_differ_and_leave_the_data_alone(make: MakeObjective, corpus: Path) -> None:
    ids = np.arange(len(TEXTS))
    seen = [make(seed=seed).batch(ids, draw).inputs["input_ids"] for seed in (0, 1) for draw in (0, 1)]
    assert not any(torch.equal(seen[first], seen[second]) for first in range(4) for second in range(first))
    assert [TokenTable(corpus).tokens(row).tolist() for row in range(len(TEXTS))] == [
        [*text.ids, END] for text in TEXTS
    ]


def test_the_ends_of_the_ratio(make: MakeObjective) -> None:
    ids = np.arange(len(TEXTS))
    assert make(0.0).targets_N.tolist() == [1] * len(TEXTS)
    assert len(make(0.0).batch(ids, 0).labels_P) == len(TEXTS)
    # The whole text: the decoder is a language model of it.
    ordinary = [token for text in TEXTS for token in text.ids if token >= FIRST_WORD]
    assert make(1.0).batch(ids, 0).labels_P.tolist() == ordinary


def within(count: int, total: int, share: float) -> bool:
    """Five standard deviations of a binomial: fails by chance once in a million."""
    return abs(count - total * share) < 5 * math.sqrt(total * share * (1 - share))


def test_where_fragments_start_and_what_stands_there(make: MakeObjective) -> None:
    objective, draws = make(), 2000
    example_id, length = 15, 16
    assert len(TEXTS[example_id].ids) == length
    starts: Counter[int] = Counter()
    fates: Counter[str] = Counter()
    for draw in range(draws):
        row = row_of(objective.batch(np.array([example_id]), draw), 0)
        starts[row["positions"][0]] += 1
        seen = [row["source"][1 + place] for place in row["positions"]]
        fates.update(
            "masked" if token == MASK else "kept" if token == label else "random"
            for token, label in zip(seen, row["labels"], strict=True)
        )
    # Nine places for half of 16 tokens: both ends have a share of their own, and a ninth of the rest.
    anywhere = 0.6 / 9
    assert all(within(starts[place], draws, anywhere + (0.2 if place in (0, 8) else 0)) for place in range(9))
    total, chance = fates.total(), 1 / (VOCABULARY - FIRST_WORD)
    assert total == draws * length // 2
    assert within(fates["masked"], total, 0.8)
    assert within(fates["kept"], total, 0.1 + 0.1 * chance)
    assert within(fates["random"], total, 0.1 * (1 - chance))


def test_the_mask_token() -> None:
    assert find_mask_id(make_tokenizer()) == MASK
    # T5's first sentinel is its mask token.
    assert find_mask_id(make_tokenizer(mask_token=None, additional_special_tokens=["<extra_id_0>"])) == VOCABULARY
    without = Vocabulary(make_tokenizer(mask_token=None), VOCABULARY, decoder_start_id=START)
    with pytest.raises(UserError, match="mssm needs a tokenizer with a mask token"):
        arrange(make_pretraining(), without)


def test_a_text_without_language_needs_a_start(corpus: Path) -> None:
    with pytest.raises(AssertionError):
        open_corpus(corpus, make_pretraining(), Vocabulary(make_tokenizer(), VOCABULARY), 0)


def test_what_the_loop_asks_for(make: MakeObjective) -> None:
    objective = make()
    assert (objective.head, objective.number_of_classes) == ("target_tokens", VOCABULARY)
    assert objective.gold_ids.tolist() == list(range(len(TEXTS)))
    batch = objective.batch(np.arange(3, dtype=np.int32), 7)
    tensors = [*batch.inputs.values(), batch.positions_P, batch.labels_P, batch.example_ids_B]
    assert all(tensor.dtype == torch.int64 for tensor in tensors)
    assert batch.draw == 7
    assert batch.positions_P.tolist() == sorted(batch.positions_P.tolist())
