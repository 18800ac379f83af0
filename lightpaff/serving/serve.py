"""`lightpaff serve`: from a directory to worker processes that listen."""

import os
import tempfile
from pathlib import Path

from lightpaff.deployment.card import ExportCard
from lightpaff.errors import UserError
from lightpaff.serving.settings import KEY_ENVIRONMENT, ServeSettings

_STOPPING_SECONDS = 30


def read_key(file: Path | None) -> str:
    """The key out of a file or the environment; empty where there is none.

    Raises:
        UserError: the file cannot be read, or is empty.
    """
    if file is None:
        return os.environ.get(KEY_ENVIRONMENT, "")
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: the key cannot be read ({error})") from error
    if not key:
        raise UserError(f"{file}: is empty; write a key into it")
    return key


def serve(settings: ServeSettings, host: str, port: int, workers: int) -> None:
    """Serve until SIGTERM or Ctrl-C; what was accepted is answered first.

    Raises:
        UserError: uvicorn or FastAPI is not installed, or the export cannot be opened.
    """
    try:
        import uvicorn

        from lightpaff.serving import metrics
        from lightpaff.serving.app import create_app
    except ImportError as error:
        raise UserError(f'serve: {error.name} is not installed: pip install "lightpaff[serve]"') from error
    ExportCard.read(Path(settings.export))
    options = {
        "host": host,
        "port": port,
        "access_log": False,
        "log_level": "warning",
        "timeout_graceful_shutdown": _STOPPING_SECONDS,
        "timeout_keep_alive": 15,
        "server_header": False,
        "limit_concurrency": None,
    }
    settings.to_environment()
    if workers == 1:
        import logging
        import sys

        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        uvicorn.run(create_app(settings), **options)  # type: ignore[arg-type]
        return
    with tempfile.TemporaryDirectory(prefix="lightpaff-metrics-") as shared:
        os.environ[metrics.SHARED] = shared
        uvicorn.run("lightpaff.serving.app:create_from_environment", factory=True, workers=workers, **options)  # type: ignore[arg-type]
