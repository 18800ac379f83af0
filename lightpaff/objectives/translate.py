"""Sequence to sequence (the paper's SS): any text to any text, every token of the target predicted.

The target may also be what the teacher writes for the source (sequence-level distillation; Kim & Rush 2016, section
3.2), for a share of the examples, drawn anew every time.

Shapes: B examples, S tokens of the source, T tokens of the target, P target positions, N rows.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lightpaff.data.draws import content_keys, generator
from lightpaff.data.languages import first_decoder_token, first_written_token, source_prefix
from lightpaff.data.split_warnings import warn_of_repeated
from lightpaff.data.task_sources import SPLITS, TaskSources
from lightpaff.data.text_pairs import TARGETS, WITHOUT_TARGET, read_pairs, read_sources, write_pairs
from lightpaff.data.token_table import TOKENS, TokenTable, in_batches, write_token_table
from lightpaff.errors import UserError
from lightpaff.evaluation.generation import Search, generate, generation_settings
from lightpaff.evaluation.outputs import Outputs
from lightpaff.evaluation.texts import GeneratedTexts, read_texts, write_texts
from lightpaff.objectives.answers import Answerer, walk
from lightpaff.objectives.batch import Batch
from lightpaff.objectives.objective import AnswerWords, Objective
from lightpaff.objectives.padding import pad_tokens
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.recipe_sections import Task

_ROWS_WRITTEN_TOGETHER = 4096
_SOURCE_TOKENS_TOGETHER = 8192
"""Over the beams: a row counts once a beam."""

counted = "rows"
has_baseline = False


def prepare_rows(
    task: Task, sources: TaskSources, vocabulary: Vocabulary, result: Path, advance: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Read, clean and tokenise the splits of a task into `result`; returns a data card a split.

    Raises:
        UserError: for rows that cannot be used, naming file and row, or a language that the tokenizer lacks.
    """
    cards = [_write_split(task, split, sources, vocabulary, result, advance) for split in SPLITS if sources.of(split)]
    opened = {card["split"]: TokenTable(result / f"{card['split']}.arrow") for card in cards}
    _tell_repeated(cards[0], opened.pop("train"), opened)
    return cards


def open_split(task: Task, rows: Path, split: str, vocabulary: Vocabulary) -> "Translation":
    """A prepared split as an objective."""
    path = rows / f"{split}.arrow"
    return Translation(
        TokenTable(path),
        TokenTable(path, column=TARGETS),
        start_id=first_decoder_token(vocabulary.tokenizer, task.languages, vocabulary.decoder_start_id),
        padding_id=vocabulary.padding_id,
        number_of_classes=vocabulary.size,
        first_written_id=first_written_token(vocabulary.tokenizer, task.languages),
    )


def write_targets(path: Path, rows: Iterable[np.ndarray]) -> None:
    """Write what a teacher wrote, one row of token ids (the end token last, no start token) an example in order."""
    batches = ({TOKENS: batch} for batch in in_batches(rows, _ROWS_WRITTEN_TOGETHER))
    write_token_table(path, batches, {})


class Translation:
    """Every token of the target is predicted from the source and the target's earlier tokens.

    Args:
        sources: token ids of what is read, with the columns `source` and `references` beside them.
        targets: token ids of what is to be written, the end token last; without any where there is no target.
        start_id: what the decoder reads first.
        padding_id: of the padding token.
        number_of_classes: V, the size of the vocabulary without padded rows.
        first_written_id: the token that every target begins with, where it is the language; None elsewhere.
        teacher_targets: what the teacher writes for the same sources: it is a target as good as the gold one.
        teacher_ratio: how often that takes the place of the gold target; where there is none, it always does.
        seed: of these choices.
    """

    head = "target_tokens"

    def __init__(
        self,
        sources: TokenTable,
        targets: TokenTable,
        *,
        start_id: int,
        padding_id: int,
        number_of_classes: int,
        first_written_id: int | None = None,
        teacher_targets: TokenTable | None = None,
        teacher_ratio: float = 0.0,
        seed: int = 0,
    ) -> None:
        assert teacher_targets is None or len(teacher_targets) == len(sources), "the teacher's rows are of other data"
        self.number_of_classes, self.first_written_id = number_of_classes, first_written_id
        has_target_N = targets.lengths_N > 0
        if teacher_targets is not None:
            self.targets_N = np.maximum(targets.lengths_N, teacher_targets.lengths_N)
        else:
            # Those that the teacher has still to write will be about as long as the others: for plans and budgets.
            usual = round(float(targets.lengths_N[has_target_N].mean())) if has_target_N.any() else 0
            self.targets_N = np.where(has_target_N, targets.lengths_N, usual)
        self.lengths_N = sources.lengths_N + self.targets_N
        self.gold_targets_N = self.targets_N * (has_target_N | (teacher_targets is not None))
        self.gold_ids = np.flatnonzero(self.gold_targets_N)
        self._sources, self._targets, self._teacher_targets = sources, targets, teacher_targets
        self._start_id, self._padding_id = start_id, padding_id
        self._teacher_ratio, self._seed = teacher_ratio, seed

    def with_teacher_targets(self, table: TokenTable, ratio: float, seed: int) -> "Translation":
        """The same examples, but with probability `ratio` the target is the teacher's row of `table`. An example's
        length is then that of the longer one."""
        return Translation(
            self._sources,
            self._targets,
            start_id=self._start_id,
            padding_id=self._padding_id,
            number_of_classes=self.number_of_classes,
            first_written_id=self.first_written_id,
            teacher_targets=table,
            teacher_ratio=ratio,
            seed=seed,
        )

    @property
    def decoder_start_id(self) -> int:
        """What the decoder reads first."""
        return self._start_id

    def sources(self) -> list[str]:
        """The cleaned source texts."""
        return [str(text) for text in self._sources.column("source")]

    def references(self) -> list[list[str]]:
        """What generated texts are compared with: one text or more an example."""
        return [list(texts) for texts in self._sources.column("references")]

    def source_inputs(self, ids: np.ndarray) -> dict[str, Tensor]:
        """What the encoder takes, to generate from: `input_ids` and `attention_mask`, both B x S."""
        return pad_tokens([self._sources.tokens(int(i)) for i in ids], self._padding_id)

    def batch(self, example_ids: np.ndarray, draw: int) -> Batch:
        """The pairs as they are, but for the choice between the gold target and the teacher's."""
        targets = [self._target(int(i), draw) for i in example_ids]
        sources = [self._sources.tokens(int(i)) for i in example_ids]
        decoder = pad_tokens([np.append(self._start_id, tokens[:-1]) for tokens in targets], self._padding_id)
        return Batch(
            inputs={
                **self.source_inputs(example_ids),
                "decoder_input_ids": decoder["input_ids"],
                "decoder_attention_mask": decoder["attention_mask"],
            },
            positions_P=decoder["attention_mask"].flatten().nonzero().flatten(),
            labels_P=torch.from_numpy(np.concatenate(targets).astype(np.int64)),
            example_ids_B=torch.from_numpy(example_ids.astype(np.int64)),
            keys_B=content_keys(sources, targets),
            draw=0,
        )

    def _target(self, example_id: int, draw: int) -> np.ndarray:
        gold = self._targets.tokens(example_id)
        if self._teacher_targets is not None:
            chance = generator("mixture", self._seed, draw, example_id).random()
            if chance < self._teacher_ratio or not len(gold):
                return self._teacher_targets.tokens(example_id)
        return gold


def for_validation(task: Task) -> Task:
    """As it is."""
    return task


def answer(
    answerer: Answerer, data: Objective, task: Task, vocabulary: Vocabulary, path: Path, description: str
) -> None:
    """Generated texts with their references."""
    assert isinstance(data, Translation)
    rows = write_rows(answerer, data, task, vocabulary, description)
    hypotheses = vocabulary.tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    texts = GeneratedTexts([text.strip() for text in hypotheses], data.references(), data.sources())
    write_texts(_texts_file(path), texts)


def write_rows(
    answerer: Answerer, data: "Translation", task: Task, vocabulary: Vocabulary, description: str
) -> list[list[int]]:
    """What the model writes for every row, by beam search: token ids without the end token."""
    search = _search(data, task, vocabulary)
    rows: list[list[int]] = [[]] * len(data.lengths_N)
    for ids in walk(data, max(_SOURCE_TOKENS_TOGETHER // search.beams, 1), description):
        for id_, row in zip(ids, answerer.write(data.source_inputs(ids), search), strict=True):
            rows[id_] = row
    return rows


def read_outputs(path: Path, data: Objective) -> GeneratedTexts:
    """The texts with their references."""
    return read_texts(_texts_file(path))


def answer_words(task: Task) -> AnswerWords:
    """How the report speaks of the answers."""
    return AnswerWords("text", "texts")


def describe_timing(task: Task) -> str:
    """Of the report."""
    beams = task.generation.beams
    return f"one row at a time, {f'beam search with {beams} beams' if beams > 1 else 'greedy'}"


def timing_inputs(data: Objective, count: int, turn: int, device: torch.device) -> dict[str, Tensor]:
    """`count` sources drawn at random: the lengths are the task's own."""
    assert isinstance(data, Translation)
    ids = generator("order", 0, turn, count).integers(len(data.lengths_N), size=count)
    return {name: tensor.to(device) for name, tensor in data.source_inputs(np.sort(ids)).items()}


def answer_tokens(task: Task) -> int:
    """Written for every source, at most."""
    return task.max_target_length


def run(
    model: PreTrainedModel, data: Objective, task: Task, vocabulary: Vocabulary, inputs: dict[str, Tensor]
) -> object:
    """Write the targets as in the evaluation."""
    assert isinstance(data, Translation)
    return generate(model, inputs, _search(data, task, vocabulary))


def describe_export(task: Task, rows: Path, data: Objective, vocabulary: Vocabulary) -> dict[str, Any]:
    """A model that writes texts, with what it begins with and how it is searched."""
    assert isinstance(data, Translation)
    tokenizer, search = vocabulary.tokenizer, _search(data, task, vocabulary)
    first, written = (
        "" if id_ is None else str(tokenizer.convert_ids_to_tokens(id_))
        for id_ in (search.decoder_start_id, search.first_written_id)
    )
    return {
        "kind": "target_tokens",
        "decoder_start": first,
        "first_written": written,
        "source_prefix": source_prefix(tokenizer, task.languages),
        "beams": search.beams,
        "length_penalty": search.length_penalty,
        "max_target_length": search.max_new_tokens,
    }


def describe_use(directory: Path, data: Objective, task: Task, vocabulary: Vocabulary) -> None:
    """Let the model's own `generate` write as in the evaluation (see `generate`): the target language first, by the
    same search, and without the habits that a ready-made model comes with."""
    assert isinstance(data, Translation)
    settings = generation_settings(_search(data, task, vocabulary))
    settings.bos_token_id = vocabulary.tokenizer.bos_token_id
    settings.save_pretrained(directory)


def notes(task: Task, outputs: Outputs) -> dict[str, str]:
    """The settings of the metrics, so that others can compare."""
    assert isinstance(outputs, GeneratedTexts)
    found = outputs.signatures()
    return {metric: found[metric] for metric in task.metric_names}


def _search(data: "Translation", task: Task, vocabulary: Vocabulary) -> Search:
    return Search(
        decoder_start_id=data.decoder_start_id,
        first_written_id=data.first_written_id,
        end_id=vocabulary.tokenizer.eos_token_id,
        padding_id=vocabulary.padding_id,
        beams=task.generation.beams,
        length_penalty=task.generation.length_penalty,
        max_new_tokens=task.max_target_length,
    )


def _texts_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.jsonl")


def _write_split(
    task: Task,
    split: str,
    sources: TaskSources,
    vocabulary: Vocabulary,
    result: Path,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    own = sources.of(split)
    dropped: Counter[str] = Counter()
    pairs = read_pairs(own, task.columns, dropped, is_evaluated=split != "train")
    more = read_sources(sources.unlabelled if split == "train" else [], task.columns, dropped)
    facts = write_pairs(chain(pairs, more), vocabulary.tokenizer, task, result / f"{split}.arrow", advance)
    if not facts["rows"] - facts.get(WITHOUT_TARGET, 0):
        names = ", ".join(source.source.path for source in own)
        raise UserError(
            f"{names}: no row of {task.name} ({split}) has texts in the columns '{task.columns.source}' and "
            f"'{task.columns.target}'; {dropped.total()} are empty: correct the file or set tasks.{task.name}.columns"
        )
    # Neither the task's name nor a path: other runs reuse this step under other names.
    return {"split": split, "facts": facts, "dropped": dict(dropped), "warnings": []}


def _tell_repeated(card: dict[str, Any], train: TokenTable, evaluated: dict[str, TokenTable]) -> None:
    """Say on the training rows' card how many are evaluated too: with their target, or as any of the references."""
    pairs = {split: list(_evaluated_pairs(table)) for split, table in evaluated.items()}
    known = {pair for rows in pairs.values() for row in rows for pair in row}
    sources = {source for source, _ in known}
    learnt: set[tuple[str, str]] = set()
    repeated: Counter[str] = Counter()
    for source, target in zip(train.stream("source"), train.stream("target"), strict=True):
        if (source, target) in known:
            learnt.add((source, target))
            repeated["also in validation or test"] += 1
        elif not target and source in sources:
            repeated["without a target, source in validation or test"] += 1
    card["facts"] |= repeated
    # Of each row the pair that was learnt, if one was.
    rows = {split: [next(filter(learnt.__contains__, row), row[0]) for row in rows] for split, rows in pairs.items()}
    card["warnings"] += warn_of_repeated(learnt, rows)


def _evaluated_pairs(table: TokenTable) -> Iterator[list[tuple[str, str]]]:
    columns = (table.stream(name) for name in ("source", "target", "references"))
    for source, target, references in zip(*columns, strict=True):
        yield [(source, text) for text in (target, *references)]
