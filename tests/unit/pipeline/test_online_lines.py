"""What was measured of the exports, as the report's rows."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lightpaff.deployment.measuring import Measurement
from lightpaff.pipeline.online import online_lines

WRITER = Measurement(
    contender="teacher", runtime="pytorch", quantisation="none", threads=2, work="target_tokens", batch_size=1,
    length=None, mean_length=20.0, new_tokens=64, written=21.5, beams=4, rounds=50, median_ms=80.0, p95_ms=84.0,
    p99_ms=85.0, throughput_per_s=12.5, load_seconds=3.0, peak_bytes=900_000_000, bytes=400, cost_per_million=0.9,
    price_per_core_hour=0.04, baseline="teacher", ratio=1.0, ratio_low=1.0, ratio_high=1.0, size_ratio=1.0,
)  # fmt: skip


def test_the_report_hears_how_much_was_written(tmp_path: Path) -> None:
    (tmp_path / "online.json").write_text(json.dumps([asdict(WRITER)]))
    steps: Any = SimpleNamespace(task=SimpleNamespace(name="toy"), online=SimpleNamespace(directory=tmp_path))
    [line] = online_lines(steps)
    assert (line.task, line.baseline, line.written) == ("toy", "teacher", 21.5)
