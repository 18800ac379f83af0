"""Masked sequence to sequence modelling (MASS; Song et al. 2019, section 3): the paper's pre-training objective for
encoder-decoders. The encoder reads a text with a fragment masked, the decoder writes the fragment.

A row of the corpus is a text and the end token. The full decoder input would be F = [start, *row[:-1]], so that F[j]
is what stands before row[j]; of it the decoder gets the fragment's part alone, at the original positions.

Shapes: B examples, S tokens of the encoder, T tokens of the decoder, P target positions, V classes, N rows.
"""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from lightpaff.data.corpus import Arrangement, TokenisedText
from lightpaff.data.draws import content_keys, generator
from lightpaff.data.languages import language_id, special_token_ids
from lightpaff.data.token_table import TOKENS, TokenTable
from lightpaff.errors import UserError
from lightpaff.objectives.batch import Batch
from lightpaff.objectives.padding import pad_tokens
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.recipe_sections import Pretraining

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MASKED_SHARE = 0.8
_RANDOM_SHARE = 0.1
_START_SHARE = 0.2
_END_SHARE = 0.2
_NO_LANGUAGE = -1
_T5_MASK = "<extra_id_0>"
_LANGUAGE_COLUMN = "language_id"
_ORDINARY_COLUMN = "ordinary_tokens"

draws_anew = True


def arrange(pretraining: Pretraining, vocabulary: Vocabulary) -> Arrangement:
    """Texts one by one, longer ones cut into rows that leave room for the end token and the language.

    Raises:
        UserError: the tokenizer has no mask token.
    """
    find_mask_id(vocabulary.tokenizer)
    return Arrangement(
        whole_documents=False,
        columns={_LANGUAGE_COLUMN: pa.int32(), _ORDINARY_COLUMN: pa.int32()},
        lay_out=partial(_cut_texts, vocabulary=vocabulary, sequence_length=pretraining.sequence_length),
    )


def open_corpus(path: Path, pretraining: Pretraining, vocabulary: Vocabulary, seed: int) -> "MaskedSequenceToSequence":
    """The objective over the rows in an Arrow file.

    Raises:
        UserError: the tokenizer has no mask token.
    """
    return MaskedSequenceToSequence(
        TokenTable(path),
        special_ids=special_token_ids(vocabulary.tokenizer),
        mask_id=find_mask_id(vocabulary.tokenizer),
        padding_id=vocabulary.padding_id,
        start_id=vocabulary.decoder_start_id,
        number_of_classes=vocabulary.size,
        fragment_ratio=pretraining.fragment_ratio,
        seed=seed,
    )


def find_mask_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The id of the mask token; T5 has none of that name, and its first sentinel takes the place.

    Raises:
        UserError: there is neither.
    """
    if tokenizer.mask_token_id is not None:
        return int(tokenizer.mask_token_id)
    for number, token in tokenizer.added_tokens_decoder.items():
        if token.content == _T5_MASK:
            return int(number)
    raise UserError(
        "pretraining.objective: mssm needs a tokenizer with a mask token, and this one has none; take another teacher "
        "(mBART, BART and T5 have one), or leave pretraining out"
    )


class MaskedSequenceToSequence:
    """A contiguous fragment of every text is the target, `fragment_ratio` of its ordinary tokens long, at least one.

    As in MASS's code it is at the text's beginning with probability 0.2, at its end with 0.2, else anywhere; of its
    tokens the encoder sees 80 % masked, 10 % random, 10 % kept. Special tokens amid a text (unknown characters) are
    neither masked nor predicted.

    Args:
        rows: token ids, each row a text and the end token, with what `arrange` says beside them.
        special_ids: never masked, never drawn as a random token.
        mask_id: of the mask token.
        padding_id: of the padding token.
        start_id: what the decoder reads before the first token of a text without a language.
        number_of_classes: V, the size of the vocabulary without padded rows.
        fragment_ratio: the fragment's share of a text; 0 is one token, 1 the whole text.
        seed: of the fragments.
    """

    head = "target_tokens"

    def __init__(
        self,
        rows: TokenTable,
        *,
        special_ids: list[int],
        mask_id: int,
        padding_id: int,
        start_id: int | None,
        number_of_classes: int,
        fragment_ratio: float,
        seed: int,
    ) -> None:
        self.number_of_classes = number_of_classes
        self._languages_N = np.array(rows.column(_LANGUAGE_COLUMN), dtype=np.int64)
        has_language_N = self._languages_N != _NO_LANGUAGE
        assert start_id is not None or has_language_N.all(), "texts without a language need a start token"
        self._starts_N = np.where(has_language_N, self._languages_N, start_id if start_id is not None else _NO_LANGUAGE)
        ordinary_N = np.array(rows.column(_ORDINARY_COLUMN), dtype=np.int64)
        self.targets_N = np.maximum(1, np.rint(fragment_ratio * ordinary_N).astype(np.int64))
        self.lengths_N = rows.lengths_N + has_language_N + self.targets_N
        self.gold_targets_N = self.targets_N
        self.gold_ids = np.arange(len(self.lengths_N))
        self._rows, self._mask_id, self._padding_id, self._seed = rows, mask_id, padding_id, seed
        self._is_special_V = _mark(special_ids, number_of_classes)
        self._ordinary_ids = np.flatnonzero(~self._is_special_V)

    def batch(self, example_ids: np.ndarray, draw: int) -> Batch:
        """The texts with the fragments of this draw; labels are the tokens that stood there."""
        rows = [self._rows.tokens(int(example_id)) for example_id in example_ids]
        keys_B = content_keys(rows, self._starts_N[example_ids])
        sources, fragments, labels, places, targets = [], [], [], [], []
        for example_id, key, row in zip(example_ids, keys_B, rows, strict=True):
            count = int(self.targets_N[example_id])
            predicted, corrupted = self._corrupt(row, count, draw, int(key))
            first, stop = predicted[0], predicted[-1] + 1
            start = self._starts_N[example_id : example_id + 1]
            has_language = self._languages_N[example_id] != _NO_LANGUAGE
            sources.append(np.concatenate([start, corrupted]) if has_language else corrupted)
            fragments.append(row[first - 1 : stop - 1] if first else np.concatenate([start, row[: stop - 1]]))
            places.append(np.arange(first, stop))
            targets.append(predicted - first)
            labels.append(row[predicted])
        decoder = pad_tokens(fragments, self._padding_id)
        width = decoder["input_ids"].shape[1]
        positions_P = np.concatenate([number * width + targets_P for number, targets_P in enumerate(targets)])
        return Batch(
            inputs={
                **pad_tokens(sources, self._padding_id),
                "decoder_input_ids": decoder["input_ids"],
                "decoder_attention_mask": decoder["attention_mask"],
                "decoder_position_ids": pad_tokens(places, 0)["input_ids"],
            },
            positions_P=torch.from_numpy(positions_P.astype(np.int64)),
            labels_P=torch.from_numpy(np.concatenate(labels).astype(np.int64)),
            example_ids_B=torch.from_numpy(example_ids.astype(np.int64)),
            keys_B=keys_B,
            draw=draw,
        )

    def _corrupt(self, row: np.ndarray, count: int, draw: int, key: int) -> tuple[np.ndarray, np.ndarray]:
        """The indices of the `count` tokens to predict, ascending, and the row as the encoder sees it."""
        random = generator("fragments", self._seed, draw, key)
        ordinary = np.flatnonzero(~self._is_special_V[row])
        start = _draw_start(random, len(ordinary) - count)
        predicted = ordinary[start : start + count]
        fate = random.random(count)
        substitutes = self._ordinary_ids[random.integers(len(self._ordinary_ids), size=count)]
        seen = np.where(fate < _MASKED_SHARE, self._mask_id, row[predicted])
        corrupted = row.copy()
        corrupted[predicted] = np.where(fate >= 1 - _RANDOM_SHARE, substitutes, seen)
        return predicted, corrupted


def _draw_start(random: np.random.Generator, last: int) -> int:
    """Where a fragment starts, from 0 to `last`."""
    chance = random.random()
    anywhere = int(random.integers(last, endpoint=True))
    if chance < _START_SHARE:
        return 0
    return last if chance < _START_SHARE + _END_SHARE else anywhere


def _cut_texts(
    texts: Iterator[TokenisedText], facts: Counter[str], *, vocabulary: Vocabulary, sequence_length: int
) -> Iterator[dict[str, Any]]:
    """Rows of the corpus with their language and number of ordinary tokens; counts what is cut and dropped."""
    tokenizer = vocabulary.tokenizer
    is_special_V = _mark(special_token_ids(tokenizer), vocabulary.size)
    end = int(tokenizer.eos_token_id)
    languages: dict[str | None, int] = {None: _NO_LANGUAGE}
    for text in texts:
        if text.language not in languages:
            assert text.language is not None
            languages[text.language] = language_id(tokenizer, text.language)
        language = languages[text.language]
        facts["tokens"] += len(text.ids)
        longest = sequence_length - 1 - (language != _NO_LANGUAGE)
        if len(text.ids) > longest:
            facts["texts cut into several"] += 1
        for place in range(0, len(text.ids), longest):
            piece = text.ids[place : place + longest]
            ordinary = int(np.count_nonzero(~is_special_V[piece]))
            if ordinary:
                yield {TOKENS: [*piece, end], _LANGUAGE_COLUMN: language, _ORDINARY_COLUMN: ordinary}
            else:
                facts["pieces without an ordinary token, dropped"] += 1


def _mark(ids: list[int], size: int) -> np.ndarray:
    is_marked_V = np.zeros(size, dtype=bool)
    is_marked_V[ids] = True
    return is_marked_V
