"""Names of models on the Hub. Imports neither torch nor transformers."""

import re
from pathlib import Path

from lightpaff.data.sources import HUB_PREFIX
from lightpaff.errors import UserError

_HUB_ID = re.compile(r"(?P<name>\w[\w.-]*(?:/\w[\w.-]*)?)(?:@(?P<revision>[\w./-]+))?")


def parse_hub_source(source: str) -> tuple[str, str | None]:
    """The name and the revision of a model's source that is no directory.

    Raises:
        UserError: it can be none on the Hub either.
    """
    if Path(source).expanduser().is_file():
        raise UserError(f"{source}: is a file; name the directory with config.json and weights, or a .gguf file")
    match = _HUB_ID.fullmatch(source.removeprefix(HUB_PREFIX))
    if match is None:
        raise UserError(f"{source}: is neither an existing directory nor a Hub id; check the path, or write OWNER/NAME")
    return match["name"], match["revision"]
