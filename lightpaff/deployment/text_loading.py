"""Exported decoders and encoder-decoders as functions from text to text. Imports neither torch nor transformers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from lightpaff.deployment.card import CARD, ExportCard
from lightpaff.deployment.pieces import PIECES, PieceTokenizer
from lightpaff.deployment.runner import TextRunner, TokenRunner, open_export
from lightpaff.deployment.texts import read_prompts, read_texts
from lightpaff.errors import UserError, one_line
from lightpaff.runtimes import RUNTIMES, WORKS, runtimes_for

TOKENIZER = "tokenizer.json"

_TEXTS_TOGETHER = 16


@dataclass(frozen=True)
class Written:
    """What a model wrote.

    Attributes:
        read: tokens of what it was given, as it read them.
        tokens: that it wrote, without the end token.
        is_ended: the model ended it, and not the room for it.
    """

    text: str
    read: int
    tokens: int
    is_ended: bool


class Continuer:
    """Continues texts with an exported decoder.

    Args:
        runner: of the model.
        tokenizer: of the model.
        max_length: the most tokens of a prompt and what is written together.
        start: the id of the token that a document begins with; None where there is none.
    """

    def __init__(self, runner: TokenRunner, tokenizer: Tokenizer, max_length: int, start: int | None = None) -> None:
        self._runner, self._tokenizer, self._max_length = runner, tokenizer, max_length
        self._start = [] if start is None else [start]
        self._special = _special_ids(tokenizer)

    def __call__(self, prompts: str | Sequence[str], new_tokens: int = 32) -> list[str]:
        """What follows each prompt: up to `new_tokens` tokens, the most likely each time; the prompt is not repeated.

        A text ends where the model writes a special token. Of a prompt that is too long, the last tokens are read; a
        whole one is read from the start token on, as in training.

        Raises:
            UserError: a prompt is empty, or `new_tokens` leave no room for one.
        """
        return [written.text for written in self.write(prompts, new_tokens)]

    def write(self, prompts: str | Sequence[str], new_tokens: int) -> list[Written]:
        """As the call, with how each text ended.

        Raises:
            UserError: as the call.
        """
        texts = read_prompts(prompts)
        if not 0 < new_tokens < self._max_length:
            raise UserError(f"new_tokens: is {new_tokens}; give 1 to {self._max_length - 1}")
        room = self._max_length - new_tokens
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        for number, encoding in enumerate(encodings):
            if not encoding.ids:
                raise UserError(f"prompts: number {number + 1} is empty; give each a word to begin with")
        rows = [[*self._start, *encoding.ids][-room:] for encoding in encodings]
        found: list[Written] = []
        for first in range(0, len(rows), _TEXTS_TOGETHER):
            batch = rows[first : first + _TEXTS_TOGETHER]
            continued = self._runner.continue_prompts(batch, new_tokens)
            found += [self._written_after(row, new) for row, new in zip(batch, continued, strict=True)]
        return found

    def _written_after(self, prompt: list[int], new: list[int]) -> Written:
        end = next((place for place, id_ in enumerate(new) if id_ in self._special), len(new))
        before = self._tokenizer.decode(prompt)
        whole = self._tokenizer.decode(prompt + new[:end])
        # Decoded alone, the first new token may lose its space, or its part of a character.
        text = whole[len(before) :] if whole.startswith(before) else self._tokenizer.decode(new[:end])
        return Written(text, len(prompt), end, is_ended=end < len(new))


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
                raise UserError(f"{CARD}: source_prefix {card.source_prefix} is no token of {TOKENIZER}; export anew")
            self._first = [prefix]
        tokenizer.enable_truncation(card.max_length - len(self._first), direction=card.truncation_side)

    def __call__(self, texts: str | Sequence[str]) -> list[str]:
        """A text for each; what is longer than the card's `max_length` tokens is cut.

        Raises:
            UserError: one of them is no text.
        """
        return [written.text for written in self.write(texts, self._card.max_target_length)]

    def write(self, texts: str | Sequence[str], most_tokens: int) -> list[Written]:
        """As the call, of at most so many tokens, with how each text ended.

        Raises:
            UserError: as the call.
        """
        texts = read_texts(texts)
        rows = [self._first + encoding.ids for encoding in self._tokenizer.encode_batch(texts)]
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
            found += [
                Written(text.strip(), len(row), len(ids), is_ended=len(ids) < most_tokens)
                for row, ids, text in zip(batch, written, told, strict=True)
            ]
        return found


def load_continuer(card: ExportCard, directory: Path, threads: int = 0) -> Continuer:
    """Open an exported decoder.

    Raises:
        UserError: it is in a format that has no decoders, or its files cannot be read.
    """
    _check_format(card, directory)
    runner = open_export(card, directory, threads)
    return Continuer(runner, _open_tokenizer(directory), card.max_length, card.start)


def load_writer(card: ExportCard, directory: Path, threads: int = 0) -> Writer:
    """Open an exported encoder-decoder.

    Raises:
        UserError: it is not in CTranslate2's format, its files cannot be read, or its decoder begins with another token
            than the card says.
    """
    _check_format(card, directory)
    from lightpaff.deployment.ctranslate2_runtime import Ctranslate2TextRunner

    runner = Ctranslate2TextRunner(directory, threads)
    if card.decoder_start and card.decoder_start != runner.decoder_start:
        raise UserError(
            f"{directory}: {CARD} says that the decoder begins with {card.decoder_start}, config.json says "
            f"{runner.decoder_start}; export it anew"
        )
    tokenizer = PieceTokenizer(directory) if card.tokenizer == PIECES else _open_tokenizer(directory)
    return Writer(runner, tokenizer, card)


def _check_format(card: ExportCard, directory: Path) -> None:
    known = [RUNTIMES[runtime].format for runtime in runtimes_for(WORKS[card.kind]) if runtime != "pytorch"]
    if card.format not in known:
        raise UserError(
            f"{directory}: is an export for {card.format}, and such models are used here from {' or '.join(known)} "
            "only; export it to that"
        )


def _open_tokenizer(directory: Path) -> Tokenizer:
    path = directory / TOKENIZER
    try:
        tokenizer = Tokenizer.from_file(str(path))
    # The tokenizers library raises bare Exception.
    except Exception as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)}); export the model anew") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _special_ids(tokenizer: Tokenizer) -> set[int]:
    return {id_ for id_, token in tokenizer.get_added_tokens_decoder().items() if token.special}
