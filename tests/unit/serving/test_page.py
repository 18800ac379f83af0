"""What the page shows of an answer, by running its script beside elements of our own making."""

import json
import shutil
import subprocess
from importlib.resources import files
from typing import Any

import pytest

NODE = shutil.which("node")
SHOWN = """
const element = () => ({ addEventListener() {}, append() {}, style: {} });
globalThis.document = { getElementById: element, createElement: element };
const said = new Function(`${process.argv[1]}; return said;`)();
console.log(JSON.stringify(said(JSON.parse(process.argv[2])).map((one) => one.textContent ?? one.className)));
"""


@pytest.mark.skipif(NODE is None, reason="there is no Node")
@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ({"text": "in 1903", "start": 4, "end": 11, "score": 0.5}, ["in 1903"]),
        ({"text": "", "start": 0, "end": 0, "score": 0.5}, ["no answer"]),
        ({"score": 2.25}, ["2.250"]),
        ({"text": "well"}, ["well"]),
        ({"spans": []}, []),
        ({"label": "a", "probabilities": {"a": 0.75, "b": 0.25}}, ["row best", "row"]),
    ],
)
def test_an_answer_is_shown(answer: dict[str, Any], shown: list[str]) -> None:
    script = (files("lightpaff.serving") / "page.js").read_text()
    done = subprocess.run(
        [str(NODE), "-e", SHOWN, script, json.dumps(answer)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == shown
