"""`lightpaff serve`: from a directory to worker processes that listen."""

import contextlib
import logging
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from lightpaff.deployment.card import ExportCard
from lightpaff.errors import UserError
from lightpaff.serving.listening import address_of, bind, is_reached_from_elsewhere
from lightpaff.serving.settings import KEY_ENVIRONMENT, ServeSettings

_STOPPING_SECONDS = 30
_CANNOT_START = 3
"""By which uvicorn knows that a worker which ended would end again."""


def read_key(file: Path | None) -> str:
    """The key out of a file or the environment; empty where there is none.

    Raises:
        UserError: the file cannot be read, or holds no key; or the environment's is blank.
    """
    given, source = os.environ.get(KEY_ENVIRONMENT, ""), str(file or KEY_ENVIRONMENT)
    if file is not None:
        try:
            given = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file}: the key cannot be read ({error})") from error
    key = given.strip()
    if not key and (given or file is not None):
        raise UserError(f"{source}: is empty; write a key into it")
    return key


def serve(settings: ServeSettings, host: str, port: int, workers: int) -> None:
    """Serve until SIGTERM or Ctrl-C; what was accepted is answered first.

    Raises:
        UserError: uvicorn or FastAPI is not installed, the export or the run to compare with cannot be opened, or the
            place to listen cannot be had.
    """
    try:
        import uvicorn

        from lightpaff.serving import metrics
        from lightpaff.serving.app import create_app
        from lightpaff.serving.connections import Connection
    except ImportError as error:
        raise UserError(f'serve: {error.name} is not installed: pip install "lightpaff[serve]"') from error
    ExportCard.read(Path(settings.export))
    options: dict[str, Any] = {
        "http": Connection,
        "access_log": False,
        "log_level": "warning",
        "timeout_graceful_shutdown": _STOPPING_SECONDS,
        "timeout_keep_alive": 15,
        "server_header": False,
    }
    if workers == 1:
        app, bound = create_app(settings), bind(host, port)
        _log_to_stderr()
        _tell_where(bound, settings)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(uvicorn.Config(app, **options)).run(sockets=[bound])
        return
    _try_to_open(settings)
    bound = bind(host, port)
    _tell_where(bound, settings)
    settings.to_environment()
    with tempfile.TemporaryDirectory(prefix="lightpaff-metrics-") as shared:
        os.environ[metrics.SHARED] = shared
        config = uvicorn.Config(f"{__name__}:open_in_worker", factory=True, workers=workers, **options)
        supervisor = uvicorn.supervisors.Multiprocess(config, [bound])
        supervisor.run()
    if any(process.exitcode == _CANNOT_START for process in supervisor.processes):
        raise UserError(f"{settings.export}: a worker could not start; its line is above")


def open_in_worker() -> Any:
    """The application, in a process that uvicorn started; what cannot be opened ends all of them."""
    from lightpaff.serving.app import create_app

    _log_to_stderr()
    try:
        return create_app(ServeSettings.from_environment())
    except UserError as error:
        print(f"lightpaff: {error}", file=sys.stderr)
        sys.exit(_CANNOT_START)


def _try_to_open(settings: ServeSettings) -> None:
    """In a process of its own: the one that looks after the workers holds no model."""
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as one:
            one.submit(_open, settings).result()
    except BrokenProcessPool as error:
        raise UserError(f"{settings.export}: the process that opened it died; is there memory enough?") from error


def _open(settings: ServeSettings) -> None:
    from lightpaff.serving.app import create_app

    create_app(settings)


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)


def _tell_where(bound: Any, settings: ServeSettings) -> None:
    print(address_of(bound), file=sys.stderr, flush=True)
    if not settings.api_key and is_reached_from_elsewhere(bound):
        told = "other machines may ask too, and no key is asked for; give --key-file or set"
        print(f"Warning: {told} {KEY_ENVIRONMENT}", file=sys.stderr, flush=True)
