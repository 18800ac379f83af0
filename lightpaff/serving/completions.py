"""OpenAI's completions: what a body asks for, and how what was written is told."""

import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from lightpaff.deployment.text_loading import Written
from lightpaff.errors import UserError
from lightpaff.serving.answering import told_if_cut
from lightpaff.serving.refused import RefusedError

_USUAL_TOKENS = 16
_MOST_STOPS = 4
_NOT_OFFERED = {"n": 1, "best_of": 1, "echo": False, "logprobs": None, "suffix": ""}
"""What would change the answer's form, with the value that does not."""


@dataclass(frozen=True)
class Told:
    """As much of a text as may be told, and why it ends there."""

    text: str
    reason: str


@dataclass(frozen=True)
class Asked:
    """What a body asks for.

    Attributes:
        tokens: to be written at most.
        stops: a text ends before the first of them.
        is_streamed: in pieces.
        counts_tokens: after the last piece, how many they were.
    """

    prompts: list[Any]
    tokens: int
    stops: tuple[str, ...]
    is_streamed: bool
    counts_tokens: bool

    def told(self, written: Written) -> Told:
        """What was written, up to where it is to stop."""
        places = [place for stop in self.stops if (place := written.text.find(stop)) >= 0]
        if places:
            return Told(written.text[: min(places)], "stop")
        return Told(written.text, "stop" if written.is_ended else "length")

    def sure(self, text: str) -> str:
        """Of a text that goes on, what stays as it is: no character is cut in two, and no stop has begun."""
        text = text.rstrip("\ufffd")
        begun = (size for stop in self.stops for size in range(1, len(stop)) if text.endswith(stop[:size]))
        return text[: len(text) - max(begun, default=0)]


def read_completion(body: dict[str, Any], most: int, usual: int | None = None) -> Asked:
    """Check a body.

    Args:
        body: the JSON object.
        most: tokens that may be asked for.
        usual: tokens where it names no number; left out, OpenAI's.

    Raises:
        UserError: names the field that cannot be answered.
    """
    for name, harmless in _NOT_OFFERED.items():
        if body.get(name) not in (None, harmless):
            raise UserError(f"{name}: is not offered here; leave it out")
    prompts = body.get("prompt")
    tokens = min(usual or _USUAL_TOKENS, most) if body.get("max_tokens") is None else body["max_tokens"]
    if not isinstance(tokens, int) or isinstance(tokens, bool) or not 1 <= tokens <= most:
        raise UserError(f"max_tokens: give 1 to {most}")
    given = body.get("stop")
    stops = [given] if isinstance(given, str) else [] if given is None else given
    if not isinstance(stops, list) or len(stops) > _MOST_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise UserError(f"stop: give a text or up to {_MOST_STOPS}, none of them empty")
    options = body.get("stream_options")
    counts = isinstance(options, dict) and options.get("include_usage") is True
    return Asked(
        prompts if isinstance(prompts, list) else [prompts], tokens, tuple(stops), body.get("stream") is True, counts
    )


def head_of(model: str) -> dict[str, Any]:
    """What every answer to one request begins with."""
    return {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
    }


def completion(head: dict[str, Any], asked: Asked, found: list[Written]) -> dict[str, Any]:
    """The whole answer."""
    told = [asked.told(written) for written in found]
    choices = [
        _choice(number, one.text, one.reason, written.is_cut)
        for number, (one, written) in enumerate(zip(told, found, strict=True))
    ]
    return {**head, "choices": choices, "usage": _usage(found)}


async def events(
    head: dict[str, Any], asked: Asked, first: tuple[str, Written], pieces: AsyncIterator[tuple[str, Written]]
) -> AsyncIterator[str]:
    """Server-sent events of a text's pieces, each with all that was written until then."""

    def event(choices: list[dict[str, Any]], **more: Any) -> str:
        return f"data: {json.dumps({**head, 'choices': choices, **more})}\n\n"

    piece = first
    yield event([_choice(0, piece[0], None)])
    try:
        async for piece in pieces:
            yield event([_choice(0, piece[0], None)])
    except RefusedError as error:
        # The answer has begun: it ends without its last event.
        yield f"data: {json.dumps({'error': {'message': error.told, 'type': error.reason}})}\n\n"
        return
    yield event([_choice(0, "", asked.told(piece[1]).reason, piece[1].is_cut)])
    if asked.counts_tokens:
        yield event([], usage=_usage([piece[1]]))
    yield "data: [DONE]\n\n"


def _choice(index: int, text: str, reason: str | None, is_cut: bool = False) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason, **told_if_cut(is_cut)}


def _usage(found: list[Written]) -> dict[str, int]:
    read, written = sum(one.read for one in found), sum(one.tokens for one in found)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
