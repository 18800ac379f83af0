"""SentencePiece with a vocabulary beside it, as in Marian and M2M100: `pieces.model` cuts texts, `pieces.json` says
which number a piece has. Imports neither torch nor transformers; SentencePiece only when a tokenizer is opened.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from lightpaff.errors import UserError, one_line
from lightpaff.files import write_json_whole

PIECES = "pieces.json"
MODEL = "pieces.model"

_SPACE = "▁"
_LANGUAGE = re.compile(r">>.*?<<", re.DOTALL)
"""What Marian's models of several target languages read at the beginning of a source."""


class Encoded(Protocol):
    """A text as tokens."""

    @property
    def ids(self) -> list[int]:
        """Their numbers, special ones included."""

    @property
    def overflowing(self) -> Sequence[object]:
        """What was cut off; nothing where the text was not too long."""


@dataclass(frozen=True)
class PieceRules:
    """What `pieces.json` holds.

    Attributes:
        vocabulary: every token's number.
        special: tokens that are no text, and that are found in texts as they stand.
        before: the tokens before every text.
        after: the tokens after every text.
        unknown: the token for a piece that the vocabulary lacks.
        marks_language: a `>>xx<<` that a text begins with is one token.
    """

    vocabulary: dict[str, int]
    special: list[str]
    before: list[str]
    after: list[str]
    unknown: str
    marks_language: bool

    def write(self, directory: Path, model: bytes) -> None:
        """Write both files into the directory of an export."""
        (directory / MODEL).write_bytes(model)
        write_json_whole(directory / PIECES, asdict(self))


@dataclass(frozen=True)
class _Ids:
    ids: list[int]
    overflowing: list[str]


class PieceTokenizer:
    """Answers as the tokenizers library's own does, as far as exports of encoder-decoders need it.

    Args:
        directory: of the export.

    Raises:
        UserError: its files cannot be read, or the package sentencepiece is not installed.
    """

    def __init__(self, directory: Path) -> None:
        self._cut = _open_model(directory / MODEL)
        self._rules = _read_rules(directory / PIECES)
        self._tokens = {id_: token for token, id_ in self._rules.vocabulary.items()}
        longest_first = sorted(self._rules.special, key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        self._longest: int | None = None
        self._direction = "right"

    def token_to_id(self, token: str) -> int | None:
        """The number of a token; None where there is no such token."""
        return self._rules.vocabulary.get(token)

    def enable_truncation(self, max_length: int, direction: str = "right") -> None:
        """From now on, cut texts at that end to so many tokens, special ones included."""
        self._longest, self._direction = max_length, direction

    def encode_batch(self, texts: Sequence[str]) -> Sequence[Encoded]:
        """The tokens of each text, with those before and after it."""
        return [self._encode(text) for text in texts]

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The text of each row, without special tokens."""
        special = set(self._rules.special)
        rows_of_tokens = [[self._tokens[id_] for id_ in row] for row in rows]
        joined = [self._cut.decode_pieces([token for token in row if token not in special]) for row in rows_of_tokens]
        return [str(text).replace(_SPACE, " ").strip() for text in joined]

    def _encode(self, text: str) -> _Ids:
        rules, tokens = self._rules, self._tokenise(text)
        over: list[str] = []
        if self._longest is not None:
            room = max(self._longest - len(rules.before) - len(rules.after), 0)
            first = 0 if self._direction == "right" else max(len(tokens) - room, 0)
            tokens, over = tokens[first : first + room], tokens[:first] + tokens[first + room :]
        unknown = rules.vocabulary[rules.unknown]
        ids = [rules.vocabulary.get(token, unknown) for token in (*rules.before, *tokens, *rules.after)]
        return _Ids(ids, over)

    def _tokenise(self, text: str) -> list[str]:
        tokens: list[str] = []
        for part in self._special.split(text):
            if part in self._rules.special:
                tokens.append(part)
                continue
            language = _LANGUAGE.match(part) if self._rules.marks_language else None
            tokens += [language[0]] if language else []
            tokens += self._cut.encode(part[language.end() :] if language else part, out_type=str)
        return tokens


def _open_model(path: Path) -> Any:
    try:
        import sentencepiece
    except ImportError as error:
        raise UserError(
            f'{path}: is for the package sentencepiece, which is not installed: pip install "lightpaff[sentencepiece]"'
        ) from error
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)}); export the model anew") from error


def _read_rules(path: Path) -> PieceRules:
    try:
        return PieceRules(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)}); export the model anew") from error
