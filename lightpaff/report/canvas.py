"""What the plots are drawn on: SVG that takes its colours and fonts from the page, so it follows light, dark and print.

matplotlib draws with stand-in colours, which are then replaced by the page's CSS variables. Nothing here depends on
the time or on chance: the same data gives the same bytes.
"""

import hashlib
import io
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from lightpaff.report.rows import Arm

INK, FAINT = "#a1b2c3", "#a1b2c4"
_KNOWN = ("teacher", "student", "control", "tfidf")
_OTHERS = tuple(f"arm{number}" for number in range(6))
_COLOURS = {name: f"#a1b2d{place:x}" for place, name in enumerate((*_KNOWN, *_OTHERS))}
_CSS_COLOURS = {INK: "var(--muted)", FAINT: "var(--line)"} | {
    colour: f"var(--{name})" for name, colour in _COLOURS.items()
}
_STYLE: dict[str, Any] = {
    "svg.hashsalt": "lightpaff",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}


def arm_class(arm: Arm) -> str:
    """The page's class and CSS variable for an arm's colour: by its name, so that it is the same on every page. The
    classes `arm0` to `arm5` are themselves."""
    return arm if arm in _KNOWN + _OTHERS else _OTHERS[zlib.crc32(arm.encode()) % len(_OTHERS)]


def arm_colour(arm: Arm) -> str:
    """The stand-in colour that matplotlib draws an arm with."""
    return _COLOURS[arm_class(arm)]


@dataclass(frozen=True)
class Chart:
    """A plot and its title; `svg` is one <svg> element to put into the page."""

    title: str
    svg: str


@contextmanager
def open_figure(width: float, height: float) -> Iterator[Figure]:
    """An empty figure in the report's style, `width` by `height` inches; whatever is drawn is drawn within."""
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def make_logarithmic(axes: Any, which: Literal["x", "y"]) -> None:
    """Give an axis a logarithmic scale, with plain numbers: matplotlib's own are mathematical text, which the page has
    no fonts for."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def finish_chart(title: str, figure: Figure) -> Chart:
    """The figure as SVG for the page; titles or widths differ, so that ids do."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Text stays text: the fonts that count are the reader's.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    # Several plots share one page: ids must not clash, or one plot is clipped by another's rectangle.
    prefix = "p" + hashlib.sha256(f"{title} {figure.get_figwidth()}".encode()).hexdigest()[:8]
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{prefix}-", svg)
    for colour, css in _CSS_COLOURS.items():
        svg = svg.replace(colour, css)
    return Chart(title, svg.replace("<svg ", '<svg role="img" ', 1).strip())
