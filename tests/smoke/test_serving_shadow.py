"""The teacher beside the student that answers."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.servers import ask, serving

pytestmark = [pytest.mark.needs("fastapi", "uvicorn", "prometheus_client")]


def test_the_teacher_in_the_shadow(served_export: Path, finished_run: Any) -> None:
    with serving(served_export, shadow=str(finished_run.output), shadow_share=1.0) as port:
        status, said, _ = ask(port, "/v1/compare", {"inputs": ["kind and warm"]})
        assert status == 200
        assert set(said["teacher"]["answers"][0]["probabilities"]) == set(
            said["student"]["answers"][0]["probabilities"]
        )
        assert said["agreement"]["seen"] == 1
        for _ in range(3):
            assert ask(port, body={"inputs": ["cold"]})[0] == 200
        deadline = time.monotonic() + 20
        while compared(port) < 4:
            assert time.monotonic() < deadline, "the requests were not compared"
            time.sleep(0.05)


def test_a_teacher_that_calls_its_classes_otherwise_agrees_by_their_order(
    served_export: Path, finished_run: Any, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(finished_run.output.parent, runs)
    content = json.loads((runs / "tiny" / "run.json").read_text())
    models = [role for role in content["roles"] if role["kind"] == "model"]
    [teacher] = {role["folder"] for role in models if role["arm"] == "teacher"}
    config = runs / "steps" / teacher / "config.json"
    names = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
    config.write_text(json.dumps({**json.loads(config.read_text()), **names}))
    with serving(served_export, shadow=str(runs / "tiny")) as port:
        said = ask(port, "/v1/compare", {"inputs": ["bright and warm", "dull and weak", "superb", "awful"]})[1]
    student, other = (
        [max(one["probabilities"], key=one["probabilities"].get) for one in said[name]["answers"]]
        for name in ("student", "teacher")
    )
    assert said["agreement"] == {"same": sum(map(str.__eq__, student, other)), "seen": 4}
    assert set(said["teacher"]["answers"][0]["probabilities"]) == set(said["student"]["answers"][0]["probabilities"])


def test_a_teacher_that_fails_is_no_fault_of_the_student(
    served_export: Path, finished_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("lightpaff.serving.shadow.Shadow.answer", fail)
    with serving(served_export, shadow=str(finished_run.output), shadow_share=0.0) as port:
        status, said, _ = ask(port, "/v1/compare", {"inputs": ["warm"]})
        assert (status, said["error"]["message"]) == (503, "the teacher gave no answer")
        assert ask(port, body={"inputs": ["warm"]})[0] == 200


def compared(port: int) -> float:
    lines = ask(port, "/metrics", method="GET")[1].splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("lightpaff_shadow_total{"))
