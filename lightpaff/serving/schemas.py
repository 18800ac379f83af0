"""What the OpenAPI page says of the bodies, which are read and checked by hand: too deep JSON ends no worker."""

from typing import Any

_TEXT = {"type": "string", "minLength": 1}
_PAIR = {"type": "array", "items": _TEXT, "minItems": 2, "maxItems": 2}
ANSWERS: dict[str, Any] = {
    "type": "object",
    "required": ["inputs"],
    "properties": {"inputs": {"type": "array", "minItems": 1, "items": {"anyOf": [_TEXT, _PAIR]}}},
}
COMPLETIONS: dict[str, Any] = {
    "type": "object",
    "required": ["prompt"],
    "properties": {
        "prompt": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]},
        "max_tokens": {"type": "integer", "minimum": 1},
        "stop": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "maxItems": 4}]},
        "stream": {"type": "boolean", "default": False},
        "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
        "model": {"type": "string"},
    },
}
_PROBLEMS = {
    400: "The body is no JSON.",
    401: "The key is missing or wrong.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The content type is not application/json.",
    422: "What the body asks for cannot be answered; says why.",
    503: "Too many requests wait: try again after Retry-After seconds.",
}


def documented(schema: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a route whose body is of this schema."""
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    responses: dict[int | str, dict[str, Any]] = {status: {"description": told} for status, told in _PROBLEMS.items()}
    return {"openapi_extra": {"requestBody": body}, "responses": responses}
