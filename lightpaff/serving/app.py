"""The web application: answers, completions, comparison with the teacher, health, metrics, and a page to try it."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from lightpaff.deployment.text_loading import Written
from lightpaff.errors import UserError
from lightpaff.serving.answering import Input, Served, check_input, size_of
from lightpaff.serving.batcher import Batcher, ClosedError, QueueFullError
from lightpaff.serving.completions import Asked, completion, events, head_of, read_completion
from lightpaff.serving.limits import Limits
from lightpaff.serving.metrics import Metrics
from lightpaff.serving.refused import RefusedError
from lightpaff.serving.schemas import ANSWERS, COMPLETIONS, documented
from lightpaff.serving.settings import ServeSettings
from lightpaff.serving.shadow import Shadow
from lightpaff.serving.work import Work, cut

_TOKENS_A_PIECE = 8
"""Of the first piece of a streamed completion."""
_HUNG_UP = "http.disconnect"
_STATIC = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_SAFE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def create_app(settings: ServeSettings) -> Any:
    """The application with its limits around it.

    Raises:
        UserError: the export or the run to compare with cannot be opened.
    """
    metrics = Metrics()
    server = _Server(settings, metrics)
    app = FastAPI(
        title="lightpaff",
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=server.lifespan,
        openapi_url="/openapi.json",
        redirect_slashes=False,
    )
    app.add_api_route("/v1/answers", server.answers, methods=["POST"], **documented(ANSWERS))
    if server.served.writes:
        app.add_api_route("/v1/completions", server.completions, methods=["POST"], **documented(COMPLETIONS))
    app.add_api_route("/v1/compare", server.compare, methods=["POST"], **documented(ANSWERS))
    app.add_api_route("/v1/models", server.models, methods=["GET"])
    app.add_api_route("/health", server.health, methods=["GET"])
    app.add_api_route("/ready", server.ready, methods=["GET"], responses={503: {"description": "Not now."}})
    app.add_api_route("/metrics", server.figures, methods=["GET"], response_class=Response)
    for path, (name, kind) in _STATIC.items():
        app.add_api_route(path, _static(name, kind), methods=["GET"], include_in_schema=False)
    app.add_exception_handler(RefusedError, server.refuse)
    return Limits(app, settings, metrics)


def _static(name: str, kind: str) -> Callable[[], Awaitable[Response]]:
    content = (files("lightpaff.serving") / name).read_bytes()

    async def send() -> Response:
        return Response(content, media_type=kind, headers=_SAFE)

    return send


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != _HUNG_UP:
        pass


class _Server:
    """The endpoints, and what they share."""

    def __init__(self, settings: ServeSettings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self.served = Served(Path(settings.export), settings.threads)
        self._shadow: Shadow | None = None
        if settings.shadow:
            if self.served.card.kind != "classes":
                raise UserError("--shadow compares classes, and this export gives none; leave it out")
            self._shadow = Shadow(Path(settings.shadow), settings.shadow_share, settings.threads, self.served.card)
        self._batcher: Batcher | None = None

    @contextlib.asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Ready from the start to the end; what was accepted is answered before the end."""
        settings = self._settings
        waits = settings.wait_ms / 1000
        pieces = partial(cut, most_size=self.served.most_together)
        told = self._metrics.batches.observe, self._metrics.queued.set
        self._batcher = Batcher(self.served.do, settings.most_together, waits, settings.queue, pieces, *told)
        yield
        await self._batcher.close()
        if self._shadow is not None:
            self._shadow.close()

    async def answers(self, request: Request) -> Response:
        """Answers to texts or pairs, in order."""
        inputs = self._inputs(await self._body(request))
        started = time.perf_counter()
        found = await self._ask(request, self._answers_to(inputs))
        if self._shadow is not None:
            self._shadow.compare(inputs, found, self._metrics.count_comparison)
        self._metrics.inputs.inc(len(inputs))
        milliseconds = round(1000 * (time.perf_counter() - started), 3)
        return JSONResponse({"model": self.served.name, "answers": found, "milliseconds": milliseconds})

    async def compare(self, request: Request) -> Response:
        """The student's answers beside the teacher's, where there is one in its shadow."""
        inputs = self._inputs(await self._body(request))
        started = time.perf_counter()
        found = await self._ask(request, self._answers_to(inputs))
        content: dict[str, Any] = {
            "kind": self.served.card.kind,
            "pairs": self.served.reads_pairs,
            "student": {"answers": found, "milliseconds": round(1000 * (time.perf_counter() - started), 3)},
        }
        if self._shadow is not None:
            asked = self._shadow.answer_soon(inputs)
            if asked is None:
                raise RefusedError(503, "full", "too many wait for the teacher; try again in a second")
            try:
                theirs, milliseconds = await asyncio.wait_for(asyncio.wrap_future(asked), self._settings.timeout_s)
            except TimeoutError as error:
                raise RefusedError(503, "late", "no answer of the teacher in time") from error
            except Exception as error:  # whatever it is, the student is not at fault
                raise RefusedError(503, "teacher", "the teacher gave no answer") from error
            for own, other in zip(found, theirs, strict=True):
                self._metrics.count_comparison(own["label"] == other["label"])
            content["teacher"] = {"answers": theirs, "milliseconds": round(milliseconds, 3)}
            content["agreement"] = self._metrics.agreement()
        return JSONResponse(content)

    async def completions(self, request: Request) -> Response:
        """OpenAI's completions, greedy: see `completions.py`."""
        body = await self._body(request)
        # A translation is as long as it has to be and the export lets it, what follows a prompt as long as one likes.
        usual = None if self.served.continues else self.served.most_tokens
        most = self._settings.most_tokens
        if self.served.continues:
            most = min(most, self.served.most_tokens)
        try:
            asked = read_completion(body, most, usual)
        except UserError as error:
            raise RefusedError(422, "input", str(error)) from error
        asked = replace(asked, tokens=min(asked.tokens, self.served.most_tokens))
        inputs = self._checked(asked.prompts, reads_pairs=False, name="prompt")
        head = head_of(self.served.name)
        if asked.is_streamed:
            if len(inputs) != 1:
                raise RefusedError(422, "input", "stream: give one prompt")
            pieces = self._pieces(request, str(inputs[0]), asked)
            first = await anext(pieces)
            return StreamingResponse(events(head, asked, first, pieces), media_type="text/event-stream")
        works = [Work("write", one, size_of(one), asked.tokens, asked.tokens) for one in inputs]
        return JSONResponse(completion(head, asked, await self._ask(request, works)))

    async def models(self) -> Response:
        """The one model that is served."""
        return JSONResponse({"object": "list", "data": [{"id": self.served.name, "object": "model"}]})

    async def health(self) -> Response:
        """The process answers."""
        return JSONResponse({"status": "ok"})

    async def ready(self) -> Response:
        """There is room for one more request."""
        is_ready = self._batcher is not None and self._batcher.queued < self._settings.queue
        return JSONResponse({"status": "ready" if is_ready else "full"}, 200 if is_ready else 503)

    async def figures(self) -> Response:
        """For Prometheus."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def _body(self, request: Request) -> dict[str, Any]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RefusedError(415, "type", "the content type is not application/json")
        try:
            content = json.loads(await request.body())
        except (ValueError, RecursionError) as error:
            raise RefusedError(400, "json", f"the body is no JSON ({type(error).__name__})") from error
        if not isinstance(content, dict):
            raise RefusedError(422, "input", "the body is no object")
        return content

    def _inputs(self, body: dict[str, Any]) -> list[Input]:
        values = body.get("inputs")
        if not isinstance(values, list):
            raise RefusedError(422, "input", "inputs: give a list")
        return self._checked(values, self.served.reads_pairs, "inputs")

    def _checked(self, values: list[Any], reads_pairs: bool, name: str) -> list[Input]:
        if not 1 <= len(values) <= self._settings.most_inputs:
            raise RefusedError(422, "input", f"{name}: has {len(values)}; give 1 to {self._settings.most_inputs}")
        most, is_cleaned = self._settings.most_characters, not self.served.continues
        try:
            inputs = [
                check_input(value, reads_pairs, is_cleaned, most, f"{name}.{number}")
                for number, value in enumerate(values)
            ]
        except UserError as error:
            raise RefusedError(422, "input", str(error)) from error
        most_in_all = self._settings.most_characters_in_all
        if (characters := sum(map(size_of, inputs))) > most_in_all:
            raise RefusedError(
                422, "input", f"{name}: have {characters:,} characters in all; {most_in_all:,} are the most"
            )
        return inputs

    def _answers_to(self, inputs: list[Input]) -> list[Work]:
        return [Work("answer", one, size_of(one)) for one in inputs]

    async def _ask(self, request: Request, works: list[Work]) -> list[Any]:
        """What comes of the work, as long as the client waits for it."""
        assert self._batcher is not None
        waiting: list[asyncio.Future[Any]] = []
        try:
            asked = self._batcher.submit(works, self._settings.timeout_s)
            waiting = [asked, asyncio.ensure_future(_hung_up(request))]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise RefusedError(499, "gone", "the client has hung up")
            return asked.result()
        except (QueueFullError, ClosedError) as error:
            raise RefusedError(503, "full", "too many requests wait; try again in a second") from error
        except TimeoutError as error:
            raise RefusedError(503, "late", "no answer in time; try again in a second") from error
        except UserError as error:
            raise RefusedError(422, "input", str(error)) from error
        finally:
            for one in waiting:
                one.cancel()

    async def _pieces(self, request: Request, prompt: str, asked: Asked) -> AsyncIterator[tuple[str, Written]]:
        """What is written, in pieces, each as long as all before, so that what was written is read again a few times
        only; at once where a text is searched for as a whole."""
        tokens = min(_TOKENS_A_PIECE, asked.tokens) if self.served.continues else asked.tokens
        work, said, left = Work("write", prompt, len(prompt), tokens, asked.tokens), "", asked.tokens
        while True:
            [written] = await self._ask(request, [work])
            left -= work.tokens
            told = asked.told(written)
            is_last = not left or told.reason == "stop"
            text = told.text if is_last else asked.sure(told.text)
            yield text[len(said) :], written
            if is_last:
                return
            work, said = Work("write", written, written.read + written.tokens, min(written.tokens, left)), text

    async def refuse(self, request: Request, error: Exception) -> Response:
        """Say why a request gets no answer."""
        assert isinstance(error, RefusedError)
        self._metrics.refused.labels(error.reason).inc()
        headers = {"Retry-After": "1"} if error.status == 503 else None
        return JSONResponse({"error": {"message": error.told, "type": error.reason}}, error.status, headers)
