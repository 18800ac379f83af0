"""Every command of docs/production.md, in order, on a small model."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.smoke.local_hub import serve_hub

PAGE = Path(__file__).parents[2] / "docs" / "production.md"
PATIENCE_SECONDS = 1500


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.slow
@pytest.mark.needs("fastapi", "uvicorn", "prometheus_client")
@pytest.mark.timeout(PATIENCE_SECONDS)
def test_every_command_works(finished_run: Any, tmp_path: Path) -> None:
    steps = finished_run.output.parent / "steps"
    names = json.loads((finished_run.output / "run.json").read_text())["steps"]
    teacher = next(folder for name, folder in names.items() if name.startswith("fine-tune the teacher"))
    shutil.copytree(steps / teacher / "model", tmp_path / "my-model")
    lines = (finished_run.folder / "train.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    write_csv(tmp_path / "reviews.csv", [{"text": row["sentence"], "label": row["label"]} for row in rows])
    write_csv(tmp_path / "logs.csv", [{"text": f"{row['sentence']} {row['sentence']}"} for row in rows])
    text = PAGE.read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 7
    [python] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    with serve_hub() as (address, files):
        told = subprocess.run(
            ["bash", "-e", "-c", "".join(blocks)],
            cwd=tmp_path,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "HF_ENDPOINT": address,
                "HF_HUB_OFFLINE": "0",
                "HF_TOKEN": "hf_a_token",
            },
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
    assert told.returncode == 0, told.stdout[-3000:] + told.stderr[-3000:]
    assert "README.md" in files
    assert '"label"' in told.stdout
    assert "lightpaff_requests" in told.stdout
    assert (tmp_path / "runs" / "reviews" / "report" / "index.html").exists()
    answered = subprocess.run([sys.executable, "-c", python], cwd=tmp_path, capture_output=True, text=True)
    assert answered.returncode == 0, answered.stderr
    assert "probability" in answered.stdout
