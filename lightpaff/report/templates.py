"""How pages are rendered: no undefined names, all text escaped."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lightpaff.report import formats
from lightpaff.report.canvas import arm_class


def render(template: str, **content: Any) -> str:
    """A template of this folder as a page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"formats": formats, "arm_class": arm_class}
    return environment.get_template(template).render(content) + "\n"
