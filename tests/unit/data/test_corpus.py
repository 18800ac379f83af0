import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from lightpaff.data import corpus
from lightpaff.data.corpus import (
    Arrangement,
    CorpusText,
    TokenisedText,
    held_out,
    pack_with_separators,
    prepare_corpus,
    read_corpus,
    tokenise,
)
from lightpaff.data.leaks import LeakIndex
from lightpaff.data.sources import ResolvedSource, resolve
from lightpaff.data.token_table import TokenTable, write_token_table
from lightpaff.errors import UserError
from lightpaff.models.tokenizers import train_tokenizer
from lightpaff.recipe_sections import FromScratch
from lightpaff.recipe_sources import CorpusSource, Source

WORDS = ["the", "old", "king", "saw", "a", "red", "fox", "run", "over", "nine", "green", "hills", "and", "far", "away"]
LEAK = "the old king saw a red fox run over nine hills"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    shape = {"layers": 1, "hidden_size": 16, "heads": 1, "feed_forward": 16, "vocabulary_size": 400, "max_length": 64}
    return train_tokenizer(iter([" ".join(WORDS), *WORDS] * 3), FromScratch.model_validate(shape), "encoder")


def corpus_of(folder: Path, texts: list[Any], name: str = "corpus.jsonl", column: str = "text") -> ResolvedSource:
    path = folder / name
    path.write_text("".join(json.dumps({column: text}) + "\n" for text in texts))
    return resolve(CorpusSource(path=str(path), text=column), folder)


def prepare(
    sources: list[ResolvedSource], tokenizer: Any, length: int, folder: Path, evaluated: list[str] | None = None
) -> tuple[list[list[int]], dict[str, Any]]:
    path = folder / "sequences.arrow"
    lay_out = partial(pack_with_separators, tokenizer=tokenizer, sequence_length=length)
    arrangement = Arrangement(False, {}, lambda texts, facts: lay_out(texts=texts, facts=facts))
    card = prepare_corpus(sources, tokenizer, arrangement, evaluated or [], path, lambda amount: None)
    table = TokenTable(path)
    return [table.tokens(row).tolist() for row in range(len(table))], card


TEXTS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join), min_size=1, max_size=20)


@given(TEXTS, st.integers(8, 16))
@settings(max_examples=25, deadline=None)
def test_packing_loses_nothing_but_the_tail(
    tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory, texts: list[str], length: int
) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    total = sum(len(tokens) for tokens in ids)
    sources = [corpus_of(folder, texts)]
    if total + len(texts) - 1 < length - 2:
        with pytest.raises(UserError, match=f"corpus.jsonl: holds {total} tokens, too few for one sequence;"):
            prepare(sources, tokenizer, length, folder)
        return
    sequences, card = prepare(sources, tokenizer, length, folder)
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert {len(sequence) for sequence in sequences} == {length}
    assert {(sequence[0], sequence[-1]) for sequence in sequences} == {(start, end)}
    inner = [token for sequence in sequences for token in sequence[1:-1]]
    assert not {start, tokenizer.pad_token_id, tokenizer.mask_token_id} & set(inner)
    running = [token for tokens in ids for token in tokens]
    kept = [token for token in inner if token != end]
    assert kept == running[: len(kept)]
    tail = card["dropped"]["tokens of the incomplete last sequence"]
    assert tail < length - 2
    assert len(running) - len(kept) <= tail <= len(running) - len(kept) + len(texts)
    assert card["facts"]["texts"] == len(texts)
    assert card["facts"]["tokens"] == total
    assert card["facts"]["sequences"] == len(sequences)


def test_texts_follow_each_other_with_a_separator(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    sources = [corpus_of(tmp_path, ["the old king", "a red fox"]), corpus_of(tmp_path, ["far away"], "more.jsonl")]
    (sequence,), card = prepare(sources, tokenizer, 12, tmp_path)
    expected = ["[CLS]", "the", "Ġold", "Ġking", "[SEP]", "a", "Ġred", "Ġfox", "[SEP]", "far", "Ġaway", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(sequence) == expected
    # Other runs reuse it, with the same text in another place.
    assert str(tmp_path) not in str(card)
    assert card["dropped"] == {"tokens of the incomplete last sequence": 0}


def test_leaks_are_dropped_and_counted(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    texts = ["far away", f"and {LEAK} and", "", "   ", None, "nine green hills", LEAK.upper()]
    (sequence,), card = prepare([corpus_of(tmp_path, texts)], tokenizer, 8, tmp_path, [LEAK, "not in it"])
    assert tokenizer.decode(sequence, skip_special_tokens=True) == "far awaynine green hills"
    assert card["dropped"] == {
        "empty": 3,
        "contains an evaluation example": 2,
        "tokens of the incomplete last sequence": 0,
    }
    assert card["facts"]["evaluation examples looked for"] == 2
    assert card["facts"]["evaluation examples found"] == f"{LEAK} | {LEAK}"
    assert card["facts"]["texts"] == 2


def test_no_more_than_five_leaks_are_shown(tmp_path: Path) -> None:
    dropped: Counter[str] = Counter()
    leaked: list[str] = []
    source = corpus_of(tmp_path, [LEAK] * 9 + ["far away"])
    assert list(read_corpus([source], dropped, LeakIndex([LEAK]), leaked)) == [CorpusText("far away")]
    assert dropped == {"contains an evaluation example": 9}
    assert leaked == [LEAK] * 5


def test_a_corpus_of_nothing_but_leaks_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    rows = corpus_of(tmp_path, [LEAK, f"and {LEAK}", ""])
    with pytest.raises(UserError) as caught:
        list(read_corpus([rows], Counter(), LeakIndex([LEAK])))
    problem = "no text is left; 2 texts dropped for containing an evaluation example: take other text"
    assert str(caught.value) == f"{rows.location}: {problem}"
    (tmp_path / "plain.txt").write_text(f"far away\n\n{LEAK}\n")
    whole = resolve(CorpusSource(path=str(tmp_path / "plain.txt"), document="file"), tmp_path)
    with pytest.raises(UserError, match=r"1 text dropped for .* example: cut it into shorter ones with document: "):
        list(read_corpus([whole], Counter(), LeakIndex([LEAK]), whole_documents=True))
    # What little is left is not the whole reason why it is too little.
    little = corpus_of(tmp_path, [LEAK, "far away"])
    with pytest.raises(UserError, match="too few for one sequence; 1 text dropped for containing an evaluation exampl"):
        prepare([little], tokenizer, 16, tmp_path, [LEAK])


def test_texts_are_cleaned_and_their_column_is_named(tmp_path: Path) -> None:
    source = corpus_of(tmp_path, ["  a\n b ", "c"], column="review")
    assert [text.text for text in read_corpus([source], Counter())] == ["a b", "c"]
    plain = tmp_path / "plain.txt"
    plain.write_text("first line\nsecond line\n")
    texts = list(read_corpus([resolve(Source(path=str(plain)), tmp_path)], Counter()))
    assert texts == [CorpusText("first line", None), CorpusText("second line", None)]


def test_whole_documents_are_verbatim_and_know_their_language(tmp_path: Path) -> None:
    path = tmp_path / "plain.txt"
    path.write_text(f"  one \n two\t.\n \n\n{LEAK}\nand on\nthree\n")
    source = resolve(CorpusSource(path=str(path), document="blank-line", language="en"), tmp_path)
    dropped: Counter[str] = Counter()
    texts = list(read_corpus([source], dropped, LeakIndex([LEAK.upper()]), whole_documents=True))
    assert texts == [CorpusText("  one \n two\t.", "en")]
    assert dropped == {"contains an evaluation example": 1}
    empty = corpus_of(tmp_path, ["", " \n", None, " a  b "])
    assert list(read_corpus([empty], dropped, whole_documents=True)) == [CorpusText(" a  b ", None)]
    assert dropped["empty"] == 3


def test_an_objective_lays_out_its_own_columns_and_facts(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    def lay_out(texts: Iterator[TokenisedText], facts: Counter[str]) -> Iterator[dict[str, Any]]:
        for text in texts:
            facts["tokens"] += len(text.ids)
            facts["cut texts"] += 1
            yield {"input_ids": text.ids, "marks": [len(text.ids)]}

    arrangement = Arrangement(False, {"marks": pa.large_list(pa.int32())}, lay_out)
    path = tmp_path / "rows.arrow"
    texts = ["the old king", "a fox"]
    card = prepare_corpus([corpus_of(tmp_path, texts)], tokenizer, arrangement, [], path, lambda amount: None)
    assert card["facts"] == {
        "texts": 2,
        "tokens": 5,
        "cut texts": 2,
        "sequences": 2,
        "tokens of the longest sequence": 3,
        "evaluation examples looked for": 0,
    }
    assert TokenTable(path, "marks").tokens(1).tolist() == [2]


@given(st.lists(st.text(alphabet="ab .\n", max_size=30), max_size=8), st.integers(1, 9), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_long_texts_are_tokenised_in_pieces(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], piece: int, together: int
) -> None:
    given_texts = [CorpusText(text, str(number)) for number, text in enumerate(texts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "_PIECE_CHARACTERS", piece)
        patch.setattr(corpus, "_CHARACTERS_TOKENISED_TOGETHER", together)
        tokenised = list(tokenise(iter(given_texts), tokenizer))
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert tokenised == [TokenisedText(tokens, str(number)) for number, tokens in enumerate(ids)]


@pytest.fixture(scope="module")
def table_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    def make(rows: int) -> TokenTable:
        path = tmp_path_factory.mktemp("tables") / "sequences.arrow"
        write_token_table(path, [{"input_ids": [[1]] * rows}] if rows else [], {})
        return TokenTable(path)

    return make


@given(rows=st.integers(2, 3000), fraction=st.floats(1e-4, 0.49))
@settings(max_examples=50, deadline=None)
def test_the_held_out_sequences_are_not_trained_on(table_of: Any, rows: int, fraction: float) -> None:
    training, validation = held_out(table_of(rows), fraction)
    assert sorted([*training, *validation]) == list(range(rows))
    assert len(training) > 0
    assert 1 <= len(validation) <= 512
    assert abs(len(validation) - min(rows * fraction, 512)) <= 1


def test_held_out_sequences_are_spread_evenly(table_of: Any) -> None:
    _, validation = held_out(table_of(100), 0.1)
    assert np.diff(validation).tolist() == [10] * 9
    training, validation = held_out(table_of(100_000), 0.1)
    assert (len(training), len(validation)) == (99_488, 512)
    assert set(np.diff(validation)) <= {190, 200}


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_sequences_to_hold_any_out(table_of: Any, rows: int) -> None:
    with pytest.raises(UserError, match=f"pretraining.corpus: packs into {rows} sequence, but training and validation"):
        held_out(table_of(rows), 0.1)
