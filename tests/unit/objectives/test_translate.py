"""Shapes: B examples, T tokens of the target, P target positions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lightpaff.data.sources import ResolvedSource, resolve
from lightpaff.data.task_sources import TaskSources
from lightpaff.data.token_table import TokenTable
from lightpaff.errors import UserError
from lightpaff.objectives.translate import Translation, open_split, prepare_rows, write_targets
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.recipe_sections import Task
from lightpaff.recipe_sources import Source

PAD, START, END, UNKNOWN, MASK, ENGLISH, GERMAN = range(7)
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "<en>", "<de>"]
WORDS = ["a", "red", "fox", "ein", "roter", "fuchs", "der"]
PAIRS = [
    ("a fox", "ein fuchs"),
    ("a red fox", "ein roter fuchs"),
    ("fox", "fuchs"),
    ("red", "roter roter"),
    ("a", "ein der ein"),
]


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokens = SPECIAL + WORDS
    backend = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", END)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, mask_token="<mask>", additional_special_tokens=["<en>", "<de>"], **names
    )


VOCABULARY = Vocabulary(make_tokenizer(), len(SPECIAL) + len(WORDS), decoder_start_id=START)


def make_task(**keys: Any) -> Task:
    return Task.model_validate(
        {"name": "toy", "objective": "translate", "train": "a.jsonl", "validation": "a.jsonl", **keys}
    )


def source_of(folder: Path, name: str, rows: list[dict[str, Any]]) -> list[ResolvedSource]:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [resolve(Source(path=str(folder / name)), folder)]


def as_rows(pairs: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"source": source, "target": target} for source, target in pairs]


def ids_of(text: str) -> list[int]:
    return [len(SPECIAL) + WORDS.index(word) for word in text.split()]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared splits, each with the five pairs."""
    folder = tmp_path_factory.mktemp("rows")
    own = source_of(folder, "rows.jsonl", as_rows(PAIRS))
    prepare_rows(make_task(), TaskSources(own, [], own, []), VOCABULARY, folder, lambda rows: None)
    return folder


SOME_ROWS = st.lists(st.integers(0, len(PAIRS) - 1), min_size=1, max_size=5, unique=True).map(np.array)


@given(ids=SOME_ROWS, draw=st.integers(0, 2**31))
@settings(deadline=None)
def test_a_batch_predicts_every_target_token(rows: Path, ids: np.ndarray, draw: int) -> None:
    objective = open_split(make_task(), rows, "train", VOCABULARY)
    batch = objective.batch(ids, draw)
    sources = [[*ids_of(PAIRS[i][0]), END] for i in ids]
    targets = [[*ids_of(PAIRS[i][1]), END] for i in ids]
    width = max(map(len, targets))
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        length = len(target)
        assert batch.inputs["input_ids"][row][batch.inputs["attention_mask"][row].bool()].tolist() == source
        padding = [PAD] * (width - length)
        assert batch.inputs["decoder_input_ids"][row].tolist() == [START, *target[:-1], *padding]
        assert batch.inputs["decoder_attention_mask"][row].tolist() == [1] * length + [0] * (width - length)
    assert batch.labels_P.tolist() == [token for target in targets for token in target]
    assert batch.positions_P.tolist() == [
        row * width + place for row, target in enumerate(targets) for place in range(len(target))
    ]
    generating = objective.source_inputs(ids)
    assert set(generating) == {"input_ids", "attention_mask"}
    assert all(torch.equal(generating[name], batch.inputs[name]) for name in generating)


def test_what_the_loop_asks_for(rows: Path) -> None:
    objective = open_split(make_task(), rows, "validation", VOCABULARY)
    lengths = np.array([[len(text.split()) + 1 for text in pair] for pair in PAIRS])
    assert objective.lengths_N.tolist() == lengths.sum(axis=1).tolist()
    assert objective.targets_N.tolist() == lengths[:, 1].tolist()
    assert objective.gold_ids.tolist() == [0, 1, 2, 3, 4]
    assert (objective.head, objective.number_of_classes) == ("target_tokens", VOCABULARY.size)
    assert objective.sources() == [source for source, _ in PAIRS]
    assert objective.references() == [[target] for _, target in PAIRS]
    batch = objective.batch(np.arange(3, dtype=np.int32), 7)
    tensors = [*batch.inputs.values(), batch.positions_P, batch.labels_P, batch.example_ids_B]
    assert all(tensor.dtype == torch.int64 for tensor in tensors)
    assert batch.draw == 0


def test_languages_begin_source_and_decoder(tmp_path: Path) -> None:
    own = source_of(tmp_path, "rows.jsonl", as_rows(PAIRS[:1]))
    task = make_task(languages={"source": "en", "target": "de"})
    prepare_rows(task, TaskSources(own, [], own, []), VOCABULARY, tmp_path, lambda rows: None)
    objective = open_split(task, tmp_path, "train", Vocabulary(VOCABULARY.tokenizer, VOCABULARY.size))
    batch = objective.batch(np.array([0]), 0)
    assert batch.inputs["input_ids"].tolist() == [[ENGLISH, *ids_of("a fox"), END]]
    assert batch.inputs["decoder_input_ids"].tolist() == [[GERMAN, *ids_of("ein fuchs")]]
    assert objective.decoder_start_id == GERMAN
    with pytest.raises(UserError, match="language fr: the tokenizer has neither"):
        prepare_rows(
            make_task(languages={"source": "fr", "target": "de"}),
            TaskSources(own, [], own, []),
            VOCABULARY,
            tmp_path,
            lambda rows: None,
        )
    with pytest.raises(AssertionError):
        open_split(make_task(), tmp_path, "train", Vocabulary(VOCABULARY.tokenizer, VOCABULARY.size))


def test_cards_count_what_is_dropped_cut_and_repeated(tmp_path: Path) -> None:
    train = source_of(tmp_path, "train.jsonl", [*as_rows([*PAIRS, ("fox " * 9, "der"), ("", "der")])])
    validation = source_of(tmp_path, "validation.jsonl", as_rows([("fox", "fuchs"), ("red", "der")]))
    test = source_of(tmp_path, "test.jsonl", [{"source": " a\tfox ", "refs": ["der fuchs", "ein  fuchs"]}])
    done: list[int] = []
    cards = prepare_rows(
        make_task(columns={"references": "refs"}, max_length=8),
        TaskSources(train, [], source_of(tmp_path, "v.jsonl", [{"source": "x", "refs": ["y"]}]), test),
        VOCABULARY,
        tmp_path,
        done.append,
    )
    assert [card["split"] for card in cards] == ["train", "validation", "test"]
    assert cards[0]["facts"]["rows"] == 6
    assert cards[0]["facts"]["truncated"] == 1
    assert cards[0]["facts"]["also in validation or test"] == 1
    # By its second reference.
    [warning] = cards[0]["warnings"]
    assert warning.startswith("1 of 1 test rows (100%) are training rows too")
    assert cards[0]["dropped"] == {"empty source or target": 1}
    assert "also in validation or test" not in cards[2]["facts"]
    assert sum(done) == 8
    opened = open_split(make_task(columns={"references": "refs"}), tmp_path, "test", VOCABULARY)
    assert opened.references() == [["der fuchs", "ein fuchs"]]
    assert opened.batch(np.array([0]), 0).labels_P.tolist() == [*ids_of("der fuchs"), END]
    without_test = TaskSources(train, [], validation, [])
    cards = prepare_rows(make_task(), without_test, VOCABULARY, tmp_path, lambda rows: None)
    assert [card["split"] for card in cards] == ["train", "validation"]
    assert cards[0]["facts"]["also in validation or test"] == 1


def test_a_split_without_texts_is_refused(tmp_path: Path) -> None:
    own = source_of(tmp_path, "rows.jsonl", as_rows(PAIRS))
    empty = source_of(tmp_path, "empty.jsonl", as_rows([("", "a"), ("a", "")]))
    with pytest.raises(UserError, match=r"empty\.jsonl: no row of toy \(validation\) has texts .*; 2 are empty"):
        prepare_rows(make_task(), TaskSources(own, [], empty, []), VOCABULARY, tmp_path, lambda rows: None)


MixTargets = Callable[[float, int], Translation]


@pytest.fixture(scope="module")
def mix(rows: Path) -> MixTargets:
    """With a teacher that says `der` for everything, four times for the first row."""
    path = rows / "teacher.arrow"
    (der,) = ids_of("der")
    write_targets(path, (np.array([der] * (4 if row == 0 else 1) + [END]) for row in range(len(PAIRS))))

    def make(ratio: float, seed: int) -> Translation:
        return open_split(make_task(), rows, "train", VOCABULARY).with_teacher_targets(TokenTable(path), ratio, seed)

    return make


def are_teachers(objective: Translation, draw: int, ids: list[int]) -> list[bool]:
    """Of each example, whether the decoder reads the teacher's first word."""
    batch = objective.batch(np.array(ids), draw)
    return (batch.inputs["decoder_input_ids"][:, 1] == ids_of("der")[0]).tolist()


def test_a_ratio_of_one_takes_all_from_the_teacher(mix: MixTargets) -> None:
    (der,) = ids_of("der")
    objective = mix(1.0, 0)
    batch = objective.batch(np.arange(5), 0)
    assert batch.labels_P.tolist() == [der] * 4 + [END] + [der, END] * 4
    assert batch.inputs["decoder_input_ids"][:2].tolist() == [[START, der, der, der, der], [START, der, PAD, PAD, PAD]]
    # The longer of the two, so that a batch never exceeds its budget.
    assert objective.targets_N.tolist() == [5, 4, 2, 3, 4]
    assert objective.lengths_N.tolist() == [8, 8, 4, 5, 6]
    assert objective.references() == [[target] for _, target in PAIRS]


def test_a_ratio_between_follows_the_seed(mix: MixTargets) -> None:
    everything = [0, 1, 2, 3, 4]
    chosen = np.array([are_teachers(mix(0.3, 1), draw, everything) for draw in range(400)])
    shares = chosen.mean(axis=0)
    assert (abs(shares - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 400)).all()
    # Each example by itself: the same in another batch, another with another seed.
    for draw in range(20):
        assert are_teachers(mix(0.3, 1), draw, [3, 0]) == [chosen[draw][3], chosen[draw][0]]
    assert any(are_teachers(mix(0.3, 2), draw, everything) != chosen[draw].tolist() for draw in range(20))


def test_sources_without_targets(tmp_path: Path) -> None:
    own = source_of(tmp_path, "own.jsonl", as_rows(PAIRS[:2]))
    # A target that a row has is not looked at.
    more = source_of(tmp_path, "more.jsonl", [{"source": PAIRS[2][0]}, {"source": " "}, *as_rows(PAIRS[3:4])])
    cards = prepare_rows(make_task(), TaskSources(own, more, own, []), VOCABULARY, tmp_path, lambda rows: None)
    assert cards[0]["facts"]["rows"] == 4
    assert cards[0]["facts"]["without a target"] == 2
    assert cards[0]["dropped"] == {"empty source": 1}
    alone = open_split(make_task(), tmp_path, "train", VOCABULARY)
    assert alone.gold_ids.tolist() == [0, 1]
    # What is still to be written is planned for at the others' mean length.
    assert alone.targets_N.tolist()[2:] == [round(alone.targets_N[:2].mean())] * 2
    (der,) = ids_of("der")
    write_targets(tmp_path / "teacher.arrow", (np.array([der, END]) for _ in range(4)))
    taught = alone.with_teacher_targets(TokenTable(tmp_path / "teacher.arrow"), ratio=0.0, seed=0)
    assert taught.gold_ids.tolist() == [0, 1, 2, 3]
    assert taught.batch(np.array([1, 3]), 0).labels_P.tolist() == [*ids_of(PAIRS[1][1]), END, der, END]
