"""Causal language modelling (GPT-2; Radford et al. 2019, section 2): the paper's pre-training objective for decoders,
and its language modelling task.

A document is [start] tokens [end]: end is the tokenizer's end token, start its beginning token or, where there is
none, the end token too. What is predicted at a place is the token that follows it, from those of the same document.

Shapes: B examples, S input tokens, T = S + 1 row tokens, P target positions, V classes, N examples, D documents.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from lightpaff.data.corpus import Arrangement
from lightpaff.data.draws import content_keys, generator
from lightpaff.data.task_sources import SPLITS, TaskSources
from lightpaff.data.token_table import TokenTable
from lightpaff.evaluation.likelihoods import TokenLikelihoods, read_likelihoods, write_likelihoods
from lightpaff.evaluation.outputs import Outputs
from lightpaff.objectives.answers import Answerer, ask_nll
from lightpaff.objectives.batch import NO_GOLD_LABEL, Batch
from lightpaff.objectives.document_rows import (
    HAS_GOLD,
    SEQUENCE_COLUMNS,
    STARTS,
    WORDS,
    DocumentReading,
    find_frame,
    pack_documents,
    write_split,
)
from lightpaff.objectives.objective import AnswerWords, Objective
from lightpaff.objectives.padding import pad_tokens
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.recipe_sections import Pretraining, Task

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
        columns=SEQUENCE_COLUMNS,
        lay_out=partial(
            pack_documents,
            frame=find_frame(vocabulary),
            sequence_length=pretraining.sequence_length,
            keeps_last=False,
        ),
    )


def open_corpus(path: Path, pretraining: Pretraining, vocabulary: Vocabulary, seed: int) -> "CausalLanguageModelling":
    """The objective over the rows in an Arrow file; nothing is drawn, so the seed does not matter."""
    return _open_sequences(path, vocabulary)


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
        self.gold_targets_N = self.targets_N * self._has_gold_N
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
        documents_N: the number of the document that each window is of.
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
        self.documents_N = np.repeat(np.arange(len(documents)), windows_D)
        window_N = np.arange(len(self.documents_N)) - np.repeat(np.cumsum(windows_D) - windows_D, windows_D)
        inputs_N, words_N = inputs_D[self.documents_N], words_D[self.documents_N]
        self._end_N = np.minimum(width + window_N * stride, inputs_N)
        self._start_N = np.maximum(self._end_N - width, 0)
        scored_before_N = np.where(window_N == 0, 0, width + (window_N - 1) * stride)
        self.lengths_N = self._end_N - self._start_N
        self.targets_N = self.gold_targets_N = self._end_N - scored_before_N
        self.gold_ids = np.arange(len(window_N))
        words_before_N, words_until_N = (words_N * scored // inputs_N for scored in (scored_before_N, self._end_N))
        self.words_N = (words_until_N - words_before_N).astype(np.float64)

    def tokens(self, window: int) -> np.ndarray:
        """The inputs of a window and the last token that it scores: int32, one longer than its inputs."""
        row = self._documents.tokens(int(self.documents_N[window]))
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
        )


def _make_batch(
    ids_BS: np.ndarray,
    places_BS: np.ndarray,
    positions_P: np.ndarray,
    labels_P: np.ndarray,
    example_ids: np.ndarray,
    keys_B: NDArray[np.uint64],
) -> Batch:
    return Batch(
        inputs={"input_ids": torch.from_numpy(ids_BS), "position_ids": torch.from_numpy(places_BS)},
        positions_P=torch.from_numpy(positions_P),
        labels_P=torch.from_numpy(labels_P),
        example_ids_B=torch.from_numpy(example_ids.astype(np.int64)),
        keys_B=keys_B,
        draw=0,
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
            reading = DocumentReading(task, sources.of(split), evaluated, advance, is_training)
            more = DocumentReading(task, sources.unlabelled if is_training else [], evaluated, advance, is_training)
            cards[split] = write_split(task, split, reading, more, vocabulary, result)
    return [cards[split] for split in SPLITS if split in cards]


def open_split(task: Task, rows: Path, split: str, vocabulary: Vocabulary) -> Objective:
    """A prepared split: of `train` packed rows, of the others the windows that score every token once."""
    path = rows / f"{split}.arrow"
    if split == "train":
        return _open_sequences(path, vocabulary, np.array(TokenTable(path).column(HAS_GOLD), dtype=bool))
    documents = TokenTable(path)
    return SlidingWindows(
        documents,
        np.array(documents.column(WORDS), dtype=np.int64),
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
    likelihoods = TokenLikelihoods(nll_N, data.targets_N.astype(np.int64), data.words_N, data.documents_N)
    write_likelihoods(_likelihoods_file(path), likelihoods)


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
    """A model that continues texts, which begin as they did in training."""
    return {"kind": "next_tokens", "start": find_frame(vocabulary)[0]}


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


def _open_sequences(
    path: Path, vocabulary: Vocabulary, has_gold_N: NDArray[np.bool_] | None = None
) -> CausalLanguageModelling:
    return CausalLanguageModelling(
        TokenTable(path),
        TokenTable(path, STARTS),
        padding_id=vocabulary.padding_id,
        number_of_classes=vocabulary.size,
        has_gold_N=has_gold_N,
    )
