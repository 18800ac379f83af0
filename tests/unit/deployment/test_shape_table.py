import io
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

from rich.console import Console

from lightpaff.deployment.shape_search import Budget, Candidate, MeasuredShape, Timing
from lightpaff.deployment.shape_table import ShapeSearch, draw_shapes, render_shapes, to_json_lines
from lightpaff.recipe_sections import Shape

TEACHER = Candidate(Shape(layers=12, hidden_size=768, heads=12, feed_forward=3072), 100_000_000, 85_000_000, 1)


def shape(layers: int, hidden_size: int, parameters: int, milliseconds: float) -> MeasuredShape:
    sizes = Shape(layers=layers, hidden_size=hidden_size, heads=hidden_size // 64, feed_forward=4 * hidden_size)
    timing = Timing(parameters, milliseconds, 1.2 * milliseconds, 9, 0.0)
    return MeasuredShape(Candidate(sizes, 4 * parameters, parameters, 1), timing)


SMALLEST, BEATEN = shape(2, 128, 4_000_000, 2.0), shape(12, 128, 3_000_000, 9.0)
BEST, TOO_SLOW = shape(3, 512, 25_000_000, 8.0), shape(6, 512, 35_000_000, 15.0)
SEARCH = ShapeSearch(
    name="bert <base>",
    teacher=TEACHER,
    teacher_bytes=400_000_000,
    baseline=Timing(400_000_000, 120.0, 130.0, 9, 0.0),
    measured=[SMALLEST, TOO_SLOW, BEST, BEATEN],
    recommended=BEST,
    budget=Budget(10.0, 80e6),
    candidates=48,
    runtime="ONNX Runtime int8",
    conditions="1 input of 128 tokens, 2 threads",
    facts={"length": 128},
)


def shown(search: ShapeSearch) -> str:
    stream = io.StringIO()
    Console(file=stream, width=100).print(render_shapes(search))
    return stream.getvalue()


def test_table() -> None:
    text = shown(SEARCH)
    lines = {line.strip().partition("  ")[0]: line for line in text.splitlines() if " × " in line.partition("M")[0]}
    assert list(lines) == ["2 × 128", "3 × 512", "6 × 512", "12 × 768"]
    assert lines["3 × 512"].split()[3:] == [
        "100M",
        "25M",
        "25.0",
        "MB",
        "16.0×",
        "8.0",
        "ms",
        "9.6",
        "ms",
        "15.0×",
        "recommended",
    ]
    assert lines["6 × 512"].rstrip().endswith("too slow")
    assert lines["12 × 768"].rstrip().endswith("teacher")
    assert "4 of 48 shapes measured" in " ".join(text.split())
    assert "too large to be measured" in " ".join(shown(replace(SEARCH, baseline=None)).split())


def test_json_lines() -> None:
    rows = [json.loads(line) for line in to_json_lines(SEARCH).splitlines()]
    assert [(row["layers"], row["on_front"], row["fits"], row["recommended"]) for row in rows] == [
        (2, True, True, False),
        (6, True, False, False),
        (3, True, True, True),
        (12, False, True, False),
    ]
    assert rows[2]["ratio"] == 15.0
    assert rows[2]["size_ratio"] == 16.0
    assert (rows[2]["parameters"], rows[2]["layer_parameters"]) == (100_000_000, 25_000_000)
    assert rows[2]["length"] == 128


def test_plot() -> None:
    svg = draw_shapes(SEARCH)
    assert draw_shapes(SEARCH) == svg
    root = ElementTree.fromstring(svg)
    text = " ".join("".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text"))
    for words in ("3 × 512", "6 × 512", "budget 10.0 ms", "bert <base>", "median latency (ms)", "in the layers"):
        assert words in text
    assert "12 × 128" not in text
    # Every colour that the plot uses is one that it defines.
    used = {part.partition(")")[0] for part in svg.split("var(")[1:]}
    assert used
    assert all(f"{name}:" in svg for name in used)
