"""What other objectives' exports answer over HTTP: decoders, encoder-decoders, taggers, scores, answers."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from lightpaff.deployment import load
from tests.servers import KEY, ask, serving

pytestmark = [pytest.mark.needs("fastapi", "uvicorn", "prometheus_client")]


def test_a_decoder_of_little_room_answers(served_writer: Path) -> None:
    with serving(served_writer) as port:
        status, said, _ = ask(port, body={"inputs": ["good day", "good day " * 40]})
        assert status == 200, said
        assert [one.get("truncated") for one in said["answers"]] == [None, True]
        choice = ask(port, "/v1/completions", {"prompt": "good day " * 40, "max_tokens": 4})[1]["choices"][0]
        assert choice["truncated"] is True


def test_a_stream_goes_on_from_what_it_said(served_writer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightpaff.deployment.onnx_runtime import OnnxTokenRunner

    real, read = OnnxTokenRunner.continue_prompts, []

    def otherwise_each_time(runner: Any, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        """As answers of 8 bits are, where neighbours change them."""
        read.append(len(prompts[0]))
        return [[id_ + len(read) for id_ in row] for row in real(runner, prompts, new_tokens)]

    monkeypatch.setattr(OnnxTokenRunner, "continue_prompts", otherwise_each_time)
    body = {"prompt": "good", "max_tokens": 20, "stream": True, "stream_options": {"include_usage": True}}
    with serving(served_writer) as port:
        said = ask(port, "/v1/completions", body)[1]
    assert said.endswith("data: [DONE]\n\n"), said
    assert '"completion_tokens": 20' in said
    assert [after - read[0] for after in read] == [0, 8, 16]


@pytest.mark.needs("openai")
def test_openai_s_client_reads_completions(served_writer: Path) -> None:
    import openai

    with serving(served_writer, api_key=KEY) as port:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0)
        whole = client.completions.create(model="toy", prompt="good day", max_tokens=12)
        expected = load(served_writer)(["good day"], new_tokens=12)
        [written] = load(served_writer).write(["good day"], 12)
        assert whole.choices[0].text == expected[0]
        assert whole.choices[0].finish_reason == ("stop" if written.is_ended else "length")
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (written.read, written.tokens)
        stop = expected[0][3:5]
        cut = client.completions.create(model="toy", prompt="good day", max_tokens=12, stop=stop)
        assert (cut.choices[0].text, cut.choices[0].finish_reason) == (expected[0].partition(stop)[0], "stop")
        stream = client.completions.create(model="toy", prompt="good day", max_tokens=12, stream=True)
        assert "".join(event.choices[0].text for event in stream) == expected[0]
        assert [model.id for model in client.models.list()] == ["toy"]
        with pytest.raises(openai.UnprocessableEntityError, match="max_tokens"):
            client.completions.create(model="toy", prompt="good day", max_tokens=0)


@pytest.mark.needs("ctranslate2")
def test_an_encoder_decoder_writes(
    finished_encoder_decoder_run: Any, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    told = run_cli("export", finished_encoder_decoder_run.output, "--to", "ctranslate2", "--output", tmp_path / "toy")
    assert told.code == 0, told.stderr
    expected = load(tmp_path / "toy")(["good day"])[0]
    with serving(tmp_path / "toy") as port:
        assert ask(port, body={"inputs": ["good day"]})[1]["answers"] == [{"text": expected}]
        body = {"prompt": "good day"}
        assert ask(port, "/v1/completions", body)[1]["choices"][0]["text"] == expected
        said = ask(port, "/v1/completions", {**body, "max_tokens": 2})[1]
        assert said["usage"]["completion_tokens"] <= 2
        # However long the sources are that it reads.
        assert ask(port, "/v1/completions", {**body, "max_tokens": 500})[1]["choices"][0]["text"] == expected
        said = ask(port, "/v1/completions", {**body, "stream": True})[1]
        assert said.endswith("data: [DONE]\n\n")
        events = [json.loads(line.removeprefix("data: ")) for line in said.split("\n\n")[:-2]]
        assert "".join(event["choices"][0]["text"] for event in events) == expected


WORDS = ["bright", "clever", "bada", "kenor"]
OTHER_TASKS: dict[str, tuple[str, str, Any]] = {
    "tag": ("conll", "bright\tB-praise\nbada\tO\n\n" * 12, "bright bada"),
    "regress": (
        "jsonl",
        "".join(json.dumps({"sentence": WORDS[row % 4], "label": row % 4}) + "\n" for row in range(24)),
        "bright",
    ),
    "answer": (
        "json",
        json.dumps(
            {
                "data": [
                    {
                        "title": "t",
                        "paragraphs": [
                            {
                                "context": "bada bright kenor",
                                "qas": [
                                    {
                                        "id": str(row),
                                        "question": f"kenor {row}?",
                                        "answers": [{"text": "bright", "answer_start": 5}],
                                    }
                                ],
                            }
                            for row in range(24)
                        ],
                    }
                ]
            }
        ),
        ["kenor?", "bada bright kenor"],
    ),
}


@pytest.mark.parametrize("objective", ["tag", pytest.param("regress", marks=pytest.mark.slow), "answer"])
def test_other_kinds_of_answers(
    objective: str, ready_recipe: Any, run_recipe: Callable[[Any], dict[str, Any]], run_cli: Callable[..., Any]
) -> None:
    ending, content, asked = OTHER_TASKS[objective]
    path = f"{objective}.{ending}"
    (ready_recipe.folder / path).write_text(content)
    ready_recipe.set(
        "tasks", [{"name": "toy", "objective": objective, "train": path, "validation": path, "max_length": 24}]
    )
    ready_recipe.set("control", False)
    run_recipe(ready_recipe)
    output = ready_recipe.folder / "runs" / ready_recipe.content["name"]
    told = run_cli("export", output, "--to", "onnx", "--tolerance", "100")
    assert told.code == 0, told.stderr
    export = output / "exports" / "onnx"
    with serving(export) as port:
        status, said, _ = ask(port, body={"inputs": [asked, asked]})
    assert status == 200, said
    first, second = said["answers"]
    assert first == second
    loaded: Any = load(export)
    [expected] = loaded([tuple(asked) if isinstance(asked, list) else asked])
    if objective == "tag":
        assert [dict(span) for span in first["spans"]] == [pytest.approx(asdict(span), abs=1e-4) for span in expected]
    elif objective == "answer":
        assert first == pytest.approx(
            {name: value for name, value in asdict(expected).items() if name != "is_cut"}, abs=1e-4
        )
    else:
        assert first == {"score": pytest.approx(expected, abs=1e-5)}
