"""Shapes: B examples, S tokens, P target positions."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2Model, PreTrainedTokenizerFast

from lightpaff.data.corpus import TokenisedText, prepare_corpus, write_rows
from lightpaff.data.sources import ResolvedSource, resolve
from lightpaff.data.task_sources import TaskSources
from lightpaff.data.token_table import TokenTable, write_token_table
from lightpaff.errors import UserError
from lightpaff.objectives import clm
from lightpaff.objectives.batch import NO_GOLD_LABEL
from lightpaff.objectives.clm import CausalLanguageModelling, SlidingWindows
from lightpaff.objectives.document_rows import SEQUENCE_COLUMNS, find_frame, pack_documents
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.recipe_sections import Pretraining, Task
from lightpaff.recipe_sources import CorpusSource, Source

START, END, PAD = 0, 1, 2
FRAME = (START, END)
DOCUMENTS = st.lists(st.lists(st.integers(3, 90), min_size=1, max_size=30), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    """One token a byte, as GPT-2 has them, and its only special token."""
    alphabet = {character: number for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(alphabet, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return Vocabulary(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>"), 257)


def pack(
    documents: list[list[int]], length: int, path: Path, keeps_last: bool
) -> tuple[CausalLanguageModelling, Counter[str]]:
    facts: Counter[str] = Counter()
    texts = (TokenisedText(ids) for ids in documents)
    rows = pack_documents(texts, facts, frame=FRAME, sequence_length=length, keeps_last=keeps_last)
    write_rows(path, rows, SEQUENCE_COLUMNS, 3)
    return open_rows(path), facts


def open_rows(path: Path) -> CausalLanguageModelling:
    return CausalLanguageModelling(
        TokenTable(path), TokenTable(path, "document_starts"), padding_id=PAD, number_of_classes=91
    )


def targets_of(objective: CausalLanguageModelling | SlidingWindows, size: int) -> list[tuple[list[int], int]]:
    """What is predicted, in order, each with the tokens that its piece lets it see."""
    found = []
    for first in range(0, len(objective.lengths_N), size):
        ids = np.arange(first, min(first + size, len(objective.lengths_N)))
        batch = objective.batch(ids, 0)
        tokens_BS, places_BS = batch.inputs["input_ids"], batch.inputs["position_ids"]
        width = tokens_BS.shape[1]
        assert width == objective.lengths_N[ids].max()
        for position, label in zip(batch.positions_P.tolist(), batch.labels_P.tolist(), strict=True):
            row, place = divmod(position, width)
            assert place < objective.lengths_N[ids[row]]
            piece = int(places_BS[row, place])
            assert places_BS[row, place - piece : place + 1].tolist() == list(range(piece + 1))
            found.append((tokens_BS[row, place - piece : place + 1].tolist(), label))
        assert np.bincount(batch.positions_P // width, minlength=len(ids)).tolist() == objective.targets_N[ids].tolist()
    return found


@given(documents=DOCUMENTS, length=st.integers(8, 20), keeps_last=st.booleans(), size=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_every_token_behind_a_start_is_predicted_once(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[list[int]],
    length: int,
    keeps_last: bool,
    size: int,
) -> None:
    objective, facts = pack(documents, length, tmp_path_factory.mktemp("packed") / "rows.arrow", keeps_last)
    running = [(document, place) for document in range(len(documents)) for place in range(len(documents[document]) + 2)]
    tokens = [[START, *document, END] for document in documents]
    whole = (len(running) - 1) // length
    kept = len(running) if keeps_last else whole * length + 1 if whole else 0
    expected = []
    for number in range(1, kept):
        document, place = running[number]
        if place > 0:
            row_start = (number - 1) // length * length
            context = tokens[document][max(0, place - (number - row_start)) : place]
            expected.append((context, tokens[document][place]))
    assert targets_of(objective, size) == expected
    assert facts["tokens"] == sum(map(len, documents))
    assert facts["unpacked"] == len(running) - kept
    is_short = objective.lengths_N != length
    assert not is_short[:-1].any()
    assert keeps_last or not is_short.any()
    assert objective.gold_ids.tolist() == list(range(len(objective.lengths_N)))


def test_a_row_as_the_model_sees_it(tmp_path: Path) -> None:
    objective, _ = pack([[10, 11, 12], [20], [30, 31, 32, 33]], 8, tmp_path / "rows.arrow", keeps_last=True)
    batch = objective.batch(np.array([1, 0]), 3)
    assert batch.inputs["input_ids"].tolist() == [
        [START, 30, 31, 32, 33, PAD, PAD, PAD],
        [START, 10, 11, 12, END, START, 20, END],
    ]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 4, 0, 1, 2], [0, 1, 2, 3, 4, 0, 1, 2]]
    assert batch.positions_P.tolist() == [0, 1, 2, 3, 4, 8, 9, 10, 11, 13, 14]
    assert batch.labels_P.tolist() == [30, 31, 32, 33, END, 10, 11, 12, END, 20, END]
    assert {value.dtype for value in batch.inputs.values()} == {torch.int64}
    assert (batch.example_ids_B.tolist(), batch.draw) == ([1, 0], 0)


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    width=st.integers(8, 20),
    stride=st.integers(1, 20),
    size=st.integers(1, 7),
)
@settings(max_examples=80, deadline=None)
def test_windows_score_every_token_once_with_context(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], width: int, stride: int, size: int
) -> None:
    stride = min(stride, width)
    documents = [[START, *range(3, 3 + length)] for length in lengths]
    path = tmp_path_factory.mktemp("documents") / "rows.arrow"
    words = [3 * length // 2 + 1 for length in lengths]
    write_token_table(path, [{"input_ids": documents}], {})
    windows = SlidingWindows(
        TokenTable(path), np.array(words), width=width, stride=stride, padding_id=PAD, number_of_classes=91
    )
    found = targets_of(windows, size)
    expected = [(document[:place], document[place]) for document in documents for place in range(1, len(document))]
    assert len(found) == len(expected) == windows.targets_N.sum()
    for (context, label), (everything, token) in zip(found, expected, strict=True):
        assert label == token
        assert context == everything[len(everything) - len(context) :]
        assert min(len(everything), width - stride + 1) <= len(context) <= width
    assert windows.words_N.dtype == np.float64
    assert windows.words_N.sum() == sum(words)
    assert (windows.words_N >= 0).all()
    # Only a document's last window scores less than a stride, and it is as wide as the others.
    windows_of = [1 + max(0, -(-(length - width) // stride)) for length in lengths]
    assert len(windows.lengths_N) == sum(windows_of)
    full = [min(width, length) for length, count in zip(lengths, windows_of, strict=True) for _ in range(count)]
    assert windows.lengths_N.tolist() == full


def write_source(folder: Path, name: str, content: str, **keys: Any) -> ResolvedSource:
    (folder / name).write_bytes(content.encode())
    return resolve(Source(path=str(folder / name), **keys), folder)


def test_a_task_on_files(vocabulary: Vocabulary, tmp_path: Path) -> None:
    train, validation = " \n = A = \n \n b <unk> .\n\n", " \n c d e\nf\n \n"
    sources = [
        write_source(tmp_path, name, text, document="file") for name, text in (("t.txt", train), ("v.txt", validation))
    ]
    task = Task.model_validate(
        {"name": "toy", "objective": "clm", "train": "t.txt", "validation": "v.txt", "max_length": 8, "stride": 3}
    )
    done: list[int] = []
    cards = clm.prepare_rows(task, TaskSources([sources[0]], [], [sources[1]], []), vocabulary, tmp_path, done.append)
    assert cards == [
        {
            "split": "train",
            "facts": {"rows": 4, "documents": 1, "tokens": 24, "words": 11},
            "dropped": {},
            "warnings": [],
        },
        {"split": "validation", "facts": {"rows": 1, "tokens": 13, "words": 8}, "dropped": {}, "warnings": []},
    ]
    assert sum(done) == 2
    training = clm.open_split(task, tmp_path, "train", vocabulary)
    assert training.lengths_N.tolist() == [8, 8, 8, 1]
    assert training.targets_N.sum() == 25
    windows = clm.open_split(task, tmp_path, "validation", vocabulary)
    assert isinstance(windows, SlidingWindows)
    assert windows.targets_N.tolist() == [8, 3, 2]
    assert windows.words_N.sum() == 8
    labels = [label for _, label in targets_of(windows, 2)]
    assert vocabulary.tokenizer.convert_ids_to_tokens(labels) == list(validation.replace(" ", "Ġ").replace("\n", "Ċ"))
    half = clm.open_split(task.model_copy(update={"stride": None}), tmp_path, "validation", vocabulary)
    assert half.targets_N.tolist() == [8, 4, 1]


def test_a_task_on_rows(vocabulary: Vocabulary, tmp_path: Path) -> None:
    texts: dict[str, list[str | None]] = {
        "train": ["a b", "", "same text", "same text "],
        "validation": ["c", None],
        "test": ["same text"],
    }
    sources = {
        split: [write_source(tmp_path, f"{split}.jsonl", "".join(json.dumps({"body": text}) + "\n" for text in rows))]
        for split, rows in texts.items()
    }
    task = Task.model_validate(
        {"name": "t", "objective": "clm", "train": "t", "validation": "v", "columns": {"text": "body"}}
    )
    cards = clm.prepare_rows(task, TaskSources(unlabelled=[], **sources), vocabulary, tmp_path, lambda done: None)
    told = (
        "1 of 3 training documents are validation or test documents too: expect worse on new text than the perplexity "
        "there shows"
    )
    facts = {"rows": 1, "documents": 3, "tokens": 22, "words": 6, "also in validation or test": 1}
    assert cards == [
        {"split": "train", "facts": facts, "dropped": {"empty": 1}, "warnings": [told]},
        {"split": "validation", "facts": {"rows": 1, "tokens": 1, "words": 1}, "dropped": {"empty": 1}, "warnings": []},
        {"split": "test", "facts": {"rows": 1, "tokens": 9, "words": 2}, "dropped": {}, "warnings": []},
    ]


def test_text_without_gold(vocabulary: Vocabulary, tmp_path: Path) -> None:
    own, more, held_out = (
        write_source(tmp_path, f"{name}.txt", text, document="file")
        for name, text in (("own", "abcdefghij"), ("more", "klmnopqrstuv"), ("held_out", "z"))
    )
    task = Task.model_validate(
        {"name": "t", "objective": "clm", "train": "t", "validation": "v", "unlabelled": ["u"], "max_length": 8}
    )
    sources = TaskSources(train=[own], unlabelled=[more], validation=[held_out], test=[])
    [card, _] = clm.prepare_rows(task, sources, vocabulary, tmp_path, lambda done: None)
    assert card["facts"] == {"rows": 4, "documents": 1, "tokens": 10, "words": 1, "rows for the teacher alone": 2}
    training = clm.open_split(task, tmp_path, "train", vocabulary)
    assert training.gold_ids.tolist() == [0, 1]
    assert training.targets_N.tolist() == [8, 3, 8, 5]
    batch = training.batch(np.array([2, 1]), draw=0)
    assert batch.labels_P.tolist()[:8] == [NO_GOLD_LABEL] * 8
    assert vocabulary.tokenizer.convert_ids_to_tokens(batch.labels_P.tolist()[8:10]) == ["i", "j"]
    assert len(batch.positions_P) == 11


def test_a_split_without_text_is_refused(vocabulary: Vocabulary, tmp_path: Path) -> None:
    train, blank = (write_source(tmp_path, f"{name}.txt", text, document="file") for name, text in ("ab", "b "))
    task = Task.model_validate({"name": "toy", "objective": "clm", "train": "a.txt", "validation": "b.txt"})
    with pytest.raises(UserError, match=r"b\.txt: no document of toy \(validation\) has any text in column 'text';"):
        clm.prepare_rows(task, TaskSources([train], [], [blank], []), vocabulary, tmp_path, lambda done: None)


def test_a_corpus(vocabulary: Vocabulary, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("one\n two\n\nthree and four\n \n5\n")
    source = CorpusSource(path=str(tmp_path / "corpus.txt"), document="blank-line")
    pretraining = Pretraining.model_validate(
        {
            "objective": "clm",
            "corpus": ["corpus.txt"],
            "sequence_length": 8,
            "training": {"steps": 1, "learning_rate": 1},
        }
    )
    path = tmp_path / "rows.arrow"
    arrangement = clm.arrange(pretraining, vocabulary)
    card = prepare_corpus([resolve(source, tmp_path)], vocabulary.tokenizer, arrangement, [], path, lambda done: None)
    assert card["facts"]["texts"] == 3
    assert card["facts"]["tokens"] == 23
    assert card["facts"]["sequences"] == 3
    assert card["facts"]["tokens of the longest sequence"] == 9
    assert card["dropped"] == {"tokens of the incomplete last sequence": 4}
    objective = clm.open_corpus(path, pretraining, vocabulary, 0)
    assert objective.number_of_classes == 257
    end = vocabulary.tokenizer.eos_token_id
    assert [label for _, label in targets_of(objective, 3)].count(end) == 1


def test_a_tokenizer_without_an_end_is_refused(vocabulary: Vocabulary) -> None:
    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])))
    with pytest.raises(UserError, match="has no end token"):
        find_frame(Vocabulary(plain, 1))
    beginning = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])), bos_token="<s>", eos_token="</s>"
    )
    assert find_frame(Vocabulary(beginning, 3)) == (beginning.bos_token_id, beginning.eos_token_id)
    assert find_frame(vocabulary) == (256, 256)


def test_an_export_is_told_the_token_that_documents_begin_with(vocabulary: Vocabulary) -> None:
    assert clm.describe_export(None, None, None, vocabulary) == {"kind": "next_tokens", "start": 256}  # type: ignore[arg-type]


def test_packed_documents_do_not_see_each_other(tmp_path: Path) -> None:
    config = GPT2Config(
        vocab_size=91,
        n_layer=2,
        n_embd=16,
        n_head=2,
        n_positions=16,
        use_cache=False,
        bos_token_id=START,
        eos_token_id=END,
    )
    model = GPT2Model(config).eval()
    objective, _ = pack([[10, 11, 12], [20], [30, 31, 32, 33]], 8, tmp_path / "rows.arrow", keeps_last=True)
    batch = objective.batch(np.array([0, 1]), 0)
    with torch.no_grad():
        packed_BSD = model(**batch.inputs).last_hidden_state
        second = model(input_ids=torch.tensor([[START, 20, END]])).last_hidden_state[0]
        third = model(input_ids=torch.tensor([[START, 30, 31, 32, 33]])).last_hidden_state[0]
    torch.testing.assert_close(packed_BSD[0, 5:], second)
    torch.testing.assert_close(packed_BSD[1, :5], third)
