"""What a body asks for, where a text stops, and what a stream says."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lightpaff.deployment.text_loading import Written
from lightpaff.errors import UserError
from lightpaff.serving.completions import completion, events, head_of, read_completion
from lightpaff.serving.refused import RefusedError


def written(text: str, is_ended: bool = False) -> Written:
    return Written(text, read=3, tokens=len(text), is_ended=is_ended)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"n": 2}, "n:"),
        ({"best_of": 3}, "best_of:"),
        ({"echo": True}, "echo:"),
        ({"logprobs": 0}, "logprobs:"),
        ({"logprobs": {"a": []}}, "logprobs:"),
        ({"suffix": "x"}, "suffix:"),
        ({"max_tokens": 0}, "max_tokens: give 1 to 20"),
        ({"max_tokens": 21}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 2.5}, "max_tokens"),
        ({"stop": ""}, "stop:"),
        ({"stop": ["a", 3]}, "stop:"),
        ({"stop": list("abcde")}, "stop:"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(body: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        read_completion({"prompt": "a", **body}, most=20)


def test_what_changes_nothing_may_be_asked_for() -> None:
    body = {"prompt": "a", "n": 1, "best_of": 1, "echo": False, "logprobs": None, "suffix": None, "temperature": 0.7}
    asked = read_completion(body, most=20)
    assert (asked.prompts, asked.tokens, asked.stops, asked.is_streamed) == (["a"], 16, (), False)
    assert read_completion({"prompt": "a"}, most=9).tokens == 9
    assert read_completion({"prompt": "a"}, most=90, usual=64).tokens == 64


@pytest.mark.parametrize(
    ("stop", "is_ended", "text", "reason"),
    [
        (None, False, "one. two; three", "length"),
        (None, True, "one. two; three", "stop"),
        (".", False, "one", "stop"),
        ([";", "."], False, "one", "stop"),
        ("four", False, "one. two; three", "length"),
        ("one", False, "", "stop"),
    ],
)
def test_a_text_ends_before_the_first_stop(stop: Any, is_ended: bool, text: str, reason: str) -> None:
    asked = read_completion({"prompt": "a", "stop": stop}, most=20)
    said = completion(head_of("toy"), asked, [written("one. two; three", is_ended)])
    assert [(one["text"], one["finish_reason"]) for one in said["choices"]] == [(text, reason)]
    assert said["usage"] == {"prompt_tokens": 3, "completion_tokens": 15, "total_tokens": 18}


@pytest.mark.parametrize(
    ("text", "sure"),
    [("well\n", "well"), ("well\n\nE", "well"), ("well\nE", "well\nE"), ("well", "well"), ("we\ufffd", "we")],
)
def test_the_beginning_of_a_stop_is_kept_back(text: str, sure: str) -> None:
    asked = read_completion({"prompt": "a", "stop": ["\n\nEND", "nothing"]}, most=20)
    assert asked.sure(text) == sure


def told(body: dict[str, Any], pieces: list[Any]) -> list[Any]:
    asked = read_completion({"prompt": "a", "stream": True, **body}, most=20)

    async def rest() -> AsyncIterator[tuple[str, Written]]:
        for piece in pieces[1:]:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def collect() -> list[str]:
        return [event async for event in events(head_of("toy"), asked, pieces[0], rest())]

    found = [event.removeprefix("data: ").strip() for event in asyncio.run(collect())]
    return [json.loads(event) if event != "[DONE]" else event for event in found]


def test_a_stream_ends_with_its_reason_and_the_count_that_was_asked_for() -> None:
    pieces = [("one", written("one")), (" two", written("one two", is_ended=True))]
    said = told({"stream_options": {"include_usage": True}}, pieces)
    assert [event["choices"][0]["text"] for event in said[:3]] == ["one", " two", ""]
    assert [event["choices"][0]["finish_reason"] for event in said[:3]] == [None, None, "stop"]
    assert (said[3]["choices"], said[3]["usage"]["completion_tokens"], said[4]) == ([], 7, "[DONE]")
    assert told({}, pieces)[3] == "[DONE]"


def test_a_stream_that_cannot_go_on_says_so_and_is_not_done() -> None:
    said = told({}, [("one", written("one")), RefusedError(503, "full", "too many")])
    assert said[-1] == {"error": {"message": "too many", "type": "full"}}
