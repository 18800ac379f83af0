"""Exported decoders and encoder-decoders as functions from text to text. Imports neither torch nor transformers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokenizers import Tokenizer

from lightpaff.deployment.card import CARD, ExportCard
from lightpaff.deployment.pieces import PieceTokenizer
from lightpaff.deployment.runner import TextRunner
from lightpaff.deployment.texts import read_prompts, read_texts
from lightpaff.errors import UserError

_TEXTS_TOGETHER = 16
_USUAL_TOKENS = 32


@dataclass(frozen=True)
class Written:
    """What a model wrote.

    Attributes:
        read: tokens of what it was given, as it read them.
        tokens: that it wrote, without the end token.
        is_ended: the model ended it, and not the room for it.
        is_cut: of what it was given, not all was read.
        ids: of a decoder, the tokens that it read and those that it wrote: where it goes on.
    """

    text: str
    read: int
    tokens: int
    is_ended: bool
    is_cut: bool = False
    ids: tuple[int, ...] = ()


class Continuer:
    """Continues texts with an exported decoder.

    Args:
        runner: of the model (see `runner.TokenRunner`); where it shares scales, ONNX Runtime's.
        tokenizer: of the model.
        card: of the export: the most tokens of a prompt and what is written together, the token that a document
            begins with, and whether what is read at once shares scales.
    """

    def __init__(self, runner: Any, tokenizer: Tokenizer, card: ExportCard) -> None:
        self._runner, self._tokenizer = runner, tokenizer
        self._max_length, self._shares_scales = card.max_length, card.shares_scales
        self._start = [] if card.start is None else [card.start]
        self._special = _special_ids(tokenizer)

    @property
    def usual_tokens(self) -> int:
        """That are written where nobody says how many: 32, or half of what the model holds."""
        return min(_USUAL_TOKENS, max(self._max_length // 2, 1))

    def __call__(self, prompts: str | Sequence[str], new_tokens: int | None = None) -> list[str]:
        """What follows each prompt: up to `new_tokens` tokens, the most likely each time; the prompt is not repeated.

        A text ends where the model writes a special token. Of a prompt that is too long, the last tokens are read; a
        whole one is read from the start token on, as in training.

        Args:
            prompts: one or more.
            new_tokens: left out, `usual_tokens`.

        Raises:
            UserError: a prompt is empty, or `new_tokens` leave no room for one.
        """
        tokens = self.usual_tokens if new_tokens is None else new_tokens
        return [written.text for written in self.write(prompts, tokens)]

    def write(self, prompts: str | Sequence[str], new_tokens: int) -> list[Written]:
        """As the call, with how each text ended.

        Raises:
            UserError: as the call.
        """
        return self.write_on(self.begin(prompts, new_tokens), new_tokens)

    def begin(self, prompts: str | Sequence[str], new_tokens: int) -> list[Written]:
        """Prompts as they are read where so many tokens are to follow; nothing is written yet.

        Raises:
            UserError: as the call.
        """
        texts = read_prompts(prompts)
        if not 0 < new_tokens < self._max_length:
            raise UserError(f"new_tokens: is {new_tokens}; give 1 to {self._max_length - 1}")
        room = self._max_length - new_tokens
        begun = []
        for number, encoding in enumerate(self._tokenizer.encode_batch(texts, add_special_tokens=False), start=1):
            if not encoding.ids:
                raise UserError(f"prompts: number {number} is empty; give each a word to begin with")
            ids = (*self._start, *encoding.ids)[-room:]
            begun.append(Written("", len(ids), 0, is_ended=False, is_cut=len(encoding.ids) > room, ids=ids))
        return begun

    def write_on(self, begun: Sequence[Written], new_tokens: int) -> list[Written]:
        """What was begun, with so many more tokens, for which there has to be room. What was written stays as it is,
        and is read again: at once, or as it was written where otherwise other tokens could follow."""
        found: list[Written] = []
        for first in range(0, len(begun), _TEXTS_TOGETHER):
            batch = begun[first : first + _TEXTS_TOGETHER]
            new = self._continue(batch, new_tokens)
            found += [self._written_after(one, own) for one, own in zip(batch, new, strict=True)]
        return found

    def _continue(self, begun: Sequence[Written], new_tokens: int) -> list[list[int]]:
        if self._shares_scales and any(one.tokens for one in begun):
            rows = [(list(one.ids[: one.read]), list(one.ids[one.read :])) for one in begun]
            return [self._runner.write_on(prompt, written, new_tokens) for prompt, written in rows]
        continued: list[list[int]] = self._runner.continue_prompts([list(one.ids) for one in begun], new_tokens)
        return continued

    def _written_after(self, begun: Written, new: list[int]) -> Written:
        end = next((place for place, id_ in enumerate(new) if id_ in self._special), len(new))
        prompt, ids = list(begun.ids[: begun.read]), [*begun.ids, *new[:end]]
        before, whole = self._tokenizer.decode(prompt), self._tokenizer.decode(ids)
        # Decoded alone, the first new token may lose its space, or its part of a character.
        text = whole[len(before) :] if whole.startswith(before) else self._tokenizer.decode(ids[begun.read :])
        tokens = len(ids) - begun.read
        return replace(begun, text=text, tokens=tokens, is_ended=end < len(new), ids=tuple(ids))


class Writer:
    """Writes a text for a text (its translation, its summary) with an exported encoder-decoder.

    Args:
        runner: of the model.
        tokenizer: of the model.
        card: of the export; says how it is searched and how long texts may be.

    Raises:
        UserError: the card's `source_prefix` is no token.
    """

    def __init__(self, runner: TextRunner, tokenizer: Tokenizer | PieceTokenizer, card: ExportCard) -> None:
        self._runner, self._tokenizer, self._card = runner, tokenizer, card
        self._first: list[int] = []
        if card.source_prefix:
            prefix = tokenizer.token_to_id(card.source_prefix)
            if prefix is None:
                raise UserError(
                    f"{CARD}: source_prefix {card.source_prefix} is no token of {card.tokenizer}; export anew"
                )
            self._first = [prefix]
        tokenizer.enable_truncation(card.max_length - len(self._first), direction=card.truncation_side)

    def __call__(self, texts: str | Sequence[str]) -> list[str]:
        """A text for each; what is longer than the card's `max_length` tokens is cut.

        Raises:
            UserError: one of them is no text.
        """
        return [written.text for written in self.write(texts, self.usual_tokens)]

    @property
    def usual_tokens(self) -> int:
        """That are written at most where nobody says how many: as many as the export does."""
        return self._card.max_target_length

    def write(self, texts: str | Sequence[str], most_tokens: int) -> list[Written]:
        """As the call, of at most so many tokens, with how each text ended.

        Raises:
            UserError: as the call.
        """
        texts = read_texts(texts)
        encodings = self._tokenizer.encode_batch(texts)
        rows = [self._first + encoding.ids for encoding in encodings]
        found: list[Written] = []
        for first in range(0, len(rows), _TEXTS_TOGETHER):
            batch = rows[first : first + _TEXTS_TOGETHER]
            written = self._runner.write(
                batch,
                beams=self._card.beams,
                length_penalty=self._card.length_penalty,
                max_tokens=most_tokens,
            )
            told = self._tokenizer.decode_batch(written)
            cut = [bool(encoding.overflowing) for encoding in encodings[first : first + _TEXTS_TOGETHER]]
            found += [
                Written(text.strip(), len(row), len(ids), is_ended=len(ids) < most_tokens, is_cut=is_cut)
                for row, ids, text, is_cut in zip(batch, written, told, cut, strict=True)
            ]
        return found


def _special_ids(tokenizer: Tokenizer) -> set[int]:
    return {id_ for id_, token in tokenizer.get_added_tokens_decoder().items() if token.special}
