"""Causal language modelling (GPT-2; Radford et al. 2019, section 2): the paper's pre-training objective for decoders,
and its language modelling task.

A document is [start] tokens [end]: end is the tokenizer's end token, start its beginning token or, where there is
none, the end token too. What is predicted at a place is the token that follows it, from those of the same document.

Shapes: B examples, S input tokens, T = S + 1 row tokens, P target positions, V classes, N examples, D documents.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from lightpaff.data.corpus import Arrangement, CorpusText, TokenisedText, tokenise, write_rows
from lightpaff.data.documents import iterate_documents
from lightpaff.data.draws import content_keys, generator
from lightpaff.data.sources import ResolvedSource
from lightpaff.data.task_sources import SPLITS, TaskSources
from lightpaff.data.token_table import TOKENS, TokenTable
from lightpaff.errors import UserError
from lightpaff.evaluation.likelihoods import TokenLikelihoods, read_likelihoods, write_likelihoods
from lightpaff.evaluation.outputs import Outputs
from lightpaff.objectives.answers import Answerer, ask_nll
from lightpaff.objectives.batch import NO_GOLD_LABEL, Batch
from lightpaff.objectives.objective import AnswerWords, Objective
from lightpaff.objectives.padding import pad_tokens
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.recipe_sections import Pretraining, Task

_STARTS = "document_starts"
_WORDS = "words"
_HAS_GOLD = "has_gold"
_SEQUENCE_COLUMNS = {_STARTS: pa.large_list(pa.int32())}
_TASK_COLUMNS = {**_SEQUENCE_COLUMNS, _HAS_GOLD: pa.bool_()}
_DOCUMENT_COLUMNS = {_WORDS: pa.int64()}
_SEQUENCES_WRITTEN_TOGETHER = 4096
_DOCUMENTS_WRITTEN_TOGETHER = 256
_TOKENS_SCORED_TOGETHER = 8192
_PROMPT_TOKENS = 32
_NEW_TOKENS = 32

counted = "windows"
has_baseline = False

draws_anew = False


def arrange(pretraining: Pretraining, vocabulary: Vocabulary) -> Arrangement:
    """Whole documents, one after another, cut into rows of `sequence_length` inputs.

    Raises:
        UserError: the tokenizer has no end token.
    """
    return Arrangement(
        whole_documents=True,
        columns=_SEQUENCE_COLUMNS,
        lay_out=partial(
            pack_documents,
            frame=_find_frame(vocabulary),
            sequence_length=pretraining.sequence_length,
            keeps_last=False,
        ),
    )


def open_corpus(path: Path, pretraining: Pretraining, vocabulary: Vocabulary, seed: int) -> "CausalLanguageModelling":
    """The objective over the rows in an Arrow file; nothing is drawn, so the seed does not matter."""
    return _open_sequences(path, vocabulary)


def pack_documents(
    texts: Iterator[TokenisedText],
    facts: Counter[str],
    *,
    frame: tuple[int, int],
    sequence_length: int,
    keeps_last: bool,
) -> Iterator[dict[str, Any]]:
    """Rows of `sequence_length` + 1 tokens with the places (`document_starts`) where documents begin in them.

    The last token of a row is the first of the next, so that each is predicted once. The tokens behind the last whole
    row make a shorter one, or are counted as `unpacked`; `tokens` counts those of the texts, without start and end.

    Args:
        texts: the documents.
        facts: is counted up.
        frame: the ids of the start and of the end token.
        sequence_length: inputs of a row.
        keeps_last: whether an incomplete last row is kept.
    """
    start, end = frame
    running: list[int] = []
    starts: list[int] = []
    shared = 0  # Of the running tokens, those that the row before holds too.
    for text in texts:
        facts["tokens"] += len(text.ids)
        starts.append(len(running))
        running += [start, *text.ids, end]
        whole = (len(running) - 1) // sequence_length * sequence_length
        if whole:
            yield from _cut_rows(running[: whole + 1], starts, sequence_length)
            running, shared = running[whole:], 1
            starts = [place - whole for place in starts if place >= whole]
    if keeps_last and len(running) > shared:
        yield {TOKENS: running, _STARTS: starts}
    else:
        facts["unpacked"] = len(running) - shared


def _cut_rows(running: list[int], starts: list[int], sequence_length: int) -> Iterator[dict[str, Any]]:
    starts_D = np.array(starts)
    for place in range(0, len(running) - 1, sequence_length):
        first, behind = np.searchsorted(starts_D, [place, place + sequence_length + 1])
        yield {
            TOKENS: running[place : place + sequence_length + 1],
            _STARTS: (starts_D[first:behind] - place).tolist(),
        }


class CausalLanguageModelling:
    """Every token is predicted from those before it in its row and its document.

    Args:
        rows: token ids, as `pack_documents` lays them out.
        document_starts: the places in the rows at which documents begin.
        padding_id: of the padding token.
        number_of_classes: V, the size of the vocabulary without padded rows.
        has_gold_N: whether the tokens of a row are gold labels, or only the teacher speaks of them; left out, all are.
    """

    head = "next_tokens"

    def __init__(
        self,
        rows: TokenTable,
        document_starts: TokenTable,
        *,
        padding_id: int,
        number_of_classes: int,
        has_gold_N: NDArray[np.bool_] | None = None,
    ) -> None:
        self.number_of_classes = number_of_classes
        self.lengths_N = rows.lengths_N - 1
        self._has_gold_N = np.ones(len(rows), dtype=bool) if has_gold_N is None else has_gold_N
        self.gold_ids = np.flatnonzero(self._has_gold_N)
        row_of_start = np.repeat(np.arange(len(rows)), document_starts.lengths_N)
        # A row's first token is no target anyway.
        starts_N = np.bincount(row_of_start[document_starts.values > 0], minlength=len(rows))
        self.targets_N = self.lengths_N - starts_N
        self._rows, self._starts, self._padding_id = rows, document_starts, padding_id

    def batch(self, example_ids: np.ndarray, draw: int) -> Batch:
        """The rows as they are: nothing is drawn.

        Positions restart at 0 at the beginning of a row, of a document and of the padding: these pieces do not see
        each other.
        """
        rows = [self._rows.tokens(int(number)) for number in example_ids]
        tokens_BT = pad_tokens(rows, self._padding_id)["input_ids"].numpy()
        starts = [self._starts.tokens(int(number)) for number in example_ids]
        is_start_BT = np.zeros(tokens_BT.shape, dtype=bool)
        for row, places in enumerate(starts):
            is_start_BT[row, places] = True
        place_1S = np.arange(tokens_BT.shape[1] - 1)[None]
        lengths_B1 = self.lengths_N[example_ids][:, None]
        is_input_BS = place_1S < lengths_B1
        is_piece_BS = is_start_BT[:, :-1] | (place_1S == lengths_B1)
        piece_BS = np.maximum.accumulate(np.where(is_piece_BS, place_1S, 0), axis=1)
        is_target_BS = is_input_BS & ~is_start_BT[:, 1:]
        labels_BS = np.where(self._has_gold_N[example_ids][:, None], tokens_BT[:, 1:], NO_GOLD_LABEL)
        return _make_batch(
            np.where(is_input_BS, tokens_BT[:, :-1], self._padding_id),
            place_1S - piece_BS,
            np.flatnonzero(is_target_BS),
            labels_BS[is_target_BS],
            example_ids,
            content_keys(rows, starts),
            draw,
        )


class SlidingWindows:
    """Every token of a document behind its start token is predicted once, from as much context as its window has.

    Windows are `width` inputs wide and move on by `stride`. The first of a document scores all its tokens, each later
    one the last `stride`; the last one, which ends with the document, scores what is left, and is as wide as the
    others where the document is.

    Args:
        documents: token ids, each row [start] and the tokens of a document.
        words_D: int64, the words of each document.
        width: the most inputs of a window.
        stride: at most `width`.
        padding_id: of the padding token.
        number_of_classes: V, the size of the vocabulary without padded rows.

    Attributes:
        targets_N: the tokens that each window scores.
        words_N: float64, the words of each document shared out to its windows by the tokens they score: whole numbers,
            so that their sums are exact.
    """

    head = "next_tokens"

    def __init__(
        self,
        documents: TokenTable,
        words_D: NDArray[np.int64],
        *,
        width: int,
        stride: int,
        padding_id: int,
        number_of_classes: int,
    ) -> None:
        assert 0 < stride <= width
        self.number_of_classes = number_of_classes
        self._documents, self._padding_id = documents, padding_id
        inputs_D = documents.lengths_N - 1
        windows_D = 1 + -(-np.maximum(inputs_D - width, 0) // stride)
        self._document_N = np.repeat(np.arange(len(documents)), windows_D)
        window_N = np.arange(len(self._document_N)) - np.repeat(np.cumsum(windows_D) - windows_D, windows_D)
        inputs_N, words_N = inputs_D[self._document_N], words_D[self._document_N]
        self._end_N = np.minimum(width + window_N * stride, inputs_N)
        self._start_N = np.maximum(self._end_N - width, 0)
        scored_before_N = np.where(window_N == 0, 0, width + (window_N - 1) * stride)
        self.lengths_N = self._end_N - self._start_N
        self.targets_N = self._end_N - scored_before_N
        self.gold_ids = np.arange(len(window_N))
        words_before_N, words_until_N = (words_N * scored // inputs_N for scored in (scored_before_N, self._end_N))
        self.words_N = (words_until_N - words_before_N).astype(np.float64)

    def tokens(self, window: int) -> np.ndarray:
        """The inputs of a window and the last token that it scores: int32, one longer than its inputs."""
        row = self._documents.tokens(int(self._document_N[window]))
        return row[self._start_N[window] : self._end_N[window] + 1]

    def batch(self, example_ids: np.ndarray, draw: int) -> Batch:
        """These windows, with positions that begin at 0: nothing is drawn."""
        windows = [self.tokens(int(window)) for window in example_ids]
        tokens_BT = pad_tokens(windows, self._padding_id)["input_ids"].numpy()
        place_1S = np.arange(tokens_BT.shape[1] - 1)[None]
        lengths_B1, targets_B1 = self.lengths_N[example_ids][:, None], self.targets_N[example_ids][:, None]
        is_input_BS = place_1S < lengths_B1
        is_target_BS = is_input_BS & (place_1S >= lengths_B1 - targets_B1)
        return _make_batch(
            np.where(is_input_BS, tokens_BT[:, :-1], self._padding_id),
            np.where(is_input_BS, place_1S, place_1S - lengths_B1),
            np.flatnonzero(is_target_BS),
            tokens_BT[:, 1:][is_target_BS],
            example_ids,
            content_keys(windows, targets_B1),
            draw,
        )


def _make_batch(
    ids_BS: np.ndarray,
    places_BS: np.ndarray,
    positions_P: np.ndarray,
    labels_P: np.ndarray,
    example_ids: np.ndarray,
    keys_B: NDArray[np.uint64],
    draw: int,
) -> Batch:
    return Batch(
        inputs={"input_ids": torch.from_numpy(ids_BS), "position_ids": torch.from_numpy(places_BS)},
        positions_P=torch.from_numpy(positions_P),
        labels_P=torch.from_numpy(labels_P),
        example_ids_B=torch.from_numpy(example_ids.astype(np.int64)),
        keys_B=keys_B,
        draw=draw,
    )


def prepare_rows(
    task: Task, sources: TaskSources, vocabulary: Vocabulary, result: Path, advance: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Tokenise the documents of a task into `result`; returns a data card a split.

    Training documents are packed as in pre-training, into rows of `max_length` inputs, the last one shorter; then
    those of which only the teacher speaks.
    Validation and test documents keep a row each. Words are counted as is usual for WikiText: what white space
    separates, and the newlines.

    Raises:
        UserError: a split without text; the tokenizer has no end token; as `iterate_documents`.
    """
    evaluated: set[bytes] = set()
    cards = {}
    for split in ("validation", "test", "train"):
        if sources.of(split):
            is_training = split == "train"
            reading = _Reading(task, sources.of(split), evaluated, advance, is_training)
            more = _Reading(task, sources.unlabelled if is_training else [], evaluated, advance, is_training)
            cards[split] = _write_split(task, split, reading, more, vocabulary, result)
    return [cards[split] for split in SPLITS if split in cards]


def open_split(task: Task, rows: Path, split: str, vocabulary: Vocabulary, seed: int = 0) -> Objective:
    """A prepared split: of `train` packed rows, of the others the windows that score every token once."""
    path = rows / f"{split}.arrow"
    if split == "train":
        return _open_sequences(path, vocabulary, np.array(TokenTable(path).column(_HAS_GOLD), dtype=bool))
    documents = TokenTable(path)
    return SlidingWindows(
        documents,
        np.array(documents.column(_WORDS), dtype=np.int64),
        width=task.max_length,
        stride=task.stride or task.max_length // 2,
        padding_id=vocabulary.padding_id,
        number_of_classes=vocabulary.size,
    )


def for_validation(task: Task) -> Task:
    """Windows side by side: half the work, and enough to choose a checkpoint."""
    return task.model_copy(update={"stride": task.max_length})


def answer(
    answerer: Answerer, data: Objective, task: Task, vocabulary: Vocabulary, path: Path, description: str
) -> None:
    """The likelihood of every token of the split, once each, summed up a window, in float32."""
    assert isinstance(data, SlidingWindows)
    nll_N = ask_nll(answerer, data, _TOKENS_SCORED_TOGETHER, description, "windows")
    write_likelihoods(_likelihoods_file(path), TokenLikelihoods(nll_N, data.targets_N.astype(np.int64), data.words_N))


def read_outputs(path: Path, data: Objective) -> TokenLikelihoods:
    """The likelihoods of a split."""
    return read_likelihoods(_likelihoods_file(path))


def answer_words(task: Task) -> AnswerWords:
    """How the report speaks of the answers."""
    return AnswerWords("likelihood", "likelihoods", "of a window's log likelihood a token, in nats")


def describe_timing(task: Task) -> str:
    """Of the report."""
    return f"{_NEW_TOKENS} tokens after a prompt of {_PROMPT_TOKENS}, greedy"


def timing_inputs(data: Objective, count: int, turn: int, device: torch.device) -> dict[str, torch.Tensor]:
    """`count` prompts drawn from the split, all of one length."""
    width = min(_PROMPT_TOKENS, int(data.lengths_N.max()))
    long_enough = np.flatnonzero(data.lengths_N >= width)
    ids = long_enough[generator("order", 0, turn, count).integers(len(long_enough), size=count)]
    ids_BS = data.batch(np.sort(ids), draw=0).inputs["input_ids"][:, :width].to(device)
    return {"input_ids": ids_BS, "attention_mask": torch.ones_like(ids_BS)}


def answer_tokens(task: Task) -> int:
    """Written after every prompt."""
    return _NEW_TOKENS


def run(
    model: PreTrainedModel, data: Objective, task: Task, vocabulary: Vocabulary, inputs: dict[str, torch.Tensor]
) -> object:
    """Continue the prompts, all to the same length."""
    return model.generate(
        **inputs,
        do_sample=False,
        num_beams=1,
        max_new_tokens=_NEW_TOKENS,
        min_new_tokens=_NEW_TOKENS,
        pad_token_id=vocabulary.padding_id,
    )


def describe_export(task: Task, rows: Path, data: Objective, vocabulary: Vocabulary) -> dict[str, Any]:
    """A model that continues texts."""
    return {"kind": "next_tokens"}


def describe_use(directory: Path, data: Objective, task: Task, vocabulary: Vocabulary) -> None:
    """There is nothing to say."""


def notes(task: Task, outputs: Outputs) -> dict[str, str]:
    """How the perplexity was measured."""
    stride = task.stride or task.max_length // 2
    return {
        "perplexity": f"every token of the split scored once, in windows of {task.max_length} tokens that move on by "
        f"{stride}; a word is what white space separates, and each line end counts as one"
    }


def _likelihoods_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.safetensors")


@dataclass
class _Reading:
    """The documents of a split, counted while they are read.

    `evaluated` holds the digests of validation and test documents: they are put there, and training documents are
    looked for in it.
    """

    task: Task
    sources: list[ResolvedSource]
    evaluated: set[bytes]
    advance: Callable[[int], None]
    is_training: bool
    words: list[int] = field(default_factory=list)
    repeated: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def texts(self) -> Iterator[CorpusText]:
        for source in self.sources:
            for _, text in iterate_documents(source, self.task.columns.text):
                if not text.strip():
                    self.dropped["empty"] += 1
                    continue
                self._count(text)
                yield CorpusText(text)

    def _count(self, text: str) -> None:
        digest = hashlib.sha256(text.encode()).digest()
        if not self.is_training:
            self.evaluated.add(digest)
        self.repeated += self.is_training and digest in self.evaluated
        self.words.append(len(text.split()) + text.count("\n"))
        self.advance(1)


def _write_split(
    task: Task, split: str, reading: _Reading, unlabelled: _Reading, vocabulary: Vocabulary, result: Path
) -> dict[str, Any]:
    counted: Counter[str] = Counter()
    without_gold: Counter[str] = Counter()
    start, end = _find_frame(vocabulary)
    texts = tokenise(reading.texts(), vocabulary.tokenizer)
    path = result / f"{split}.arrow"
    rows: Iterator[dict[str, Any]]
    if split == "train":
        more = tokenise(unlabelled.texts(), vocabulary.tokenizer)
        rows = chain(
            _training_rows(texts, counted, task, (start, end), has_gold=True),
            _training_rows(more, without_gold, task, (start, end), has_gold=False),
        )
        write_rows(path, rows, _TASK_COLUMNS, _SEQUENCES_WRITTEN_TOGETHER)
    else:
        rows = _document_rows(texts, reading, counted, start)
        write_rows(path, rows, _DOCUMENT_COLUMNS, _DOCUMENTS_WRITTEN_TOGETHER)
    if counted["rows"] == 0:
        names = ", ".join(source.source.path for source in reading.sources)
        raise UserError(
            f"{names}: no document of {task.name} ({split}) has any text in column '{task.columns.text}'; correct the "
            f"file or set tasks.{task.name}.columns.text"
        )
    facts: dict[str, Any] = {"rows": counted["rows"] + without_gold["rows"]}
    if split == "train":
        facts["documents"] = len(reading.words)
    facts |= {"tokens": counted["tokens"], "words": sum(reading.words)}
    if without_gold["rows"]:
        facts["rows for the teacher alone"] = without_gold["rows"]
    if repeated := reading.repeated + unlabelled.repeated:
        facts["also in validation or test"] = repeated
    # Neither the task's name nor a path: other runs reuse this step under other names.
    warnings = [_tell_repeated(repeated, len(reading.words) + len(unlabelled.words))] if repeated else []
    return {"split": split, "facts": facts, "dropped": dict(reading.dropped + unlabelled.dropped), "warnings": warnings}


def _training_rows(
    texts: Iterator[TokenisedText], counted: Counter[str], task: Task, frame: tuple[int, int], *, has_gold: bool
) -> Iterator[dict[str, Any]]:
    for row in pack_documents(texts, counted, frame=frame, sequence_length=task.max_length, keeps_last=True):
        counted["rows"] += 1
        yield {**row, _HAS_GOLD: has_gold}


def _tell_repeated(repeated: int, documents: int) -> str:
    return (
        f"{repeated:,} of {documents:,} training documents are validation or test documents too: "
        "expect worse on new text than the perplexity there shows"
    )


def _document_rows(
    texts: Iterator[TokenisedText], reading: _Reading, counted: Counter[str], start: int
) -> Iterator[dict[str, Any]]:
    # The tokenizer reads ahead: the words of this document are counted by now.
    for number, text in enumerate(texts):
        counted["tokens"] += len(text.ids)
        if text.ids:
            counted["rows"] += 1
            yield {TOKENS: [start, *text.ids], _WORDS: reading.words[number]}
        else:
            reading.dropped["without a token"] += 1
            reading.words[number] = 0


def _open_sequences(
    path: Path, vocabulary: Vocabulary, has_gold_N: NDArray[np.bool_] | None = None
) -> CausalLanguageModelling:
    return CausalLanguageModelling(
        TokenTable(path),
        TokenTable(path, _STARTS),
        padding_id=vocabulary.padding_id,
        number_of_classes=vocabulary.size,
        has_gold_N=has_gold_N,
    )


def _find_frame(vocabulary: Vocabulary) -> tuple[int, int]:
    """The ids of the start and of the end token of a document."""
    tokenizer = vocabulary.tokenizer
    end = tokenizer.eos_token_id
    if end is None:
        raise UserError("teacher: its tokenizer has no end token (eos_token); take a decoder's, such as GPT-2's")
    return int(end if tokenizer.bos_token_id is None else tokenizer.bos_token_id), int(end)
