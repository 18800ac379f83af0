"""Decoders through the whole pipeline: causal language modelling twice, and students that anybody can run."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

# What a user of the student runs: transformers alone, with lightpaff made impossible to import. The perplexity is that
# of windows of `width` tokens which move on by `stride`; every token is scored once, with as much context as there is.
PLAIN_USER = """
import json, math, sys
sys.modules["lightpaff"] = None
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
folder, width, stride = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
model = AutoModelForCausalLM.from_pretrained(folder).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
found = {}
for split, documents in json.load(sys.stdin).items():
    nll, tokens, words = 0.0, 0, 0
    for text in documents:
        ids = [tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]
        scored = 0
        while scored < len(ids) - 1:
            end = min(scored + stride if scored else width, len(ids) - 1)
            start = max(end - width, 0)
            with torch.inference_mode():
                logits = model(torch.tensor([ids[start:end]])).logits[0].double()
            for place in range(scored, end):
                nll -= float(logits[place - start].log_softmax(-1)[ids[place + 1]])
            scored = end
        tokens += len(ids) - 1
        words += len(text.split()) + text.count("\\n")
    found[split] = {"nll": nll, "tokens": tokens, "words": words}
prompt = tokenizer("bright", return_tensors="pt")
written = model.generate(**prompt, max_new_tokens=6, do_sample=False)[0, prompt["input_ids"].shape[1]:]
expected = prompt["input_ids"]
with torch.inference_mode():
    for _ in written:
        expected = torch.cat([expected, model(expected).logits[:, -1:].argmax(-1)], dim=1)
print(json.dumps({**found, "generated": written.tolist(), "expected": expected[0, -len(written):].tolist()}))
"""


def ask_plain_user(student: Path, texts: dict[str, list[str]], width: int, stride: int) -> dict[str, Any]:
    finished = subprocess.run(
        [sys.executable, "-c", PLAIN_USER, str(student), str(width), str(stride)],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
        cwd=student,
    )
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


def score_of(report: dict[str, Any], arm: str, split: str, metric: str) -> float:
    wanted = (arm, split, metric)
    [value] = [row["value"] for row in report["rows"] if (row["arm"], row["split"], row["metric"]) == wanted]
    assert isinstance(value, float)
    return value


@pytest.fixture(scope="session")
def decoder_report(
    finished_decoder_run: Any, read_report: Callable[[Path], dict[str, Any]], check_report: Callable[..., None]
) -> dict[str, Any]:
    report = read_report(finished_decoder_run.output)
    check_report(report, finished_decoder_run.content)
    return report


def test_report_is_complete(finished_decoder_run: Any, decoder_report: dict[str, Any]) -> None:
    report = decoder_report
    assert {curve["arm"]: bool(curve["divergence"]) for curve in report["curves"]} == {
        "teacher": False,
        "student": True,
        "control": False,
    }
    assert all(
        {point["metric"] for point in curve["validation"]} == {"nll", "perplexity"} for curve in report["curves"]
    )
    parameters = {row["arm"]: row["parameters"] for row in report["rows"]}
    assert parameters["student"] == parameters["control"] < parameters["teacher"]
    assert {(line["first_arm"], line["second_arm"]) for line in report["comparisons"]} == {
        ("student", "teacher"),
        ("student", "control"),
        ("control", "teacher"),
    }
    # The teacher is asked live in both stages: nothing is captured.
    assert not [line["name"] for line in report["steps"] if "soft targets" in line["name"] or "TF-IDF" in line["name"]]
    asked = {(line["arm"], line["stage"]) for line in report["compute"] if line["teacher_flops"]}
    assert asked == {("student", "pre-training"), ("student", "fine-tuning")}
    page = (finished_decoder_run.output / "report" / "index.html").read_text()
    assert "windows of 32 tokens that move on by 12" in page


def test_training_lowers_the_perplexity(decoder_report: dict[str, Any]) -> None:
    """Less than that of guessing among all 300 tokens."""
    for arm in ("teacher", "student", "control"):
        assert 1 < score_of(decoder_report, arm, "test", "perplexity") < 250


def test_plain_transformers_finds_the_same_perplexity(
    finished_decoder_run: Any, decoder_report: dict[str, Any]
) -> None:
    folder = finished_decoder_run.folder
    texts = {
        # As the recipe reads them: documents between blank lines, and the whole file.
        "validation": (folder / "validation_stories.txt").read_text().rstrip("\n").split("\n\n"),
        "test": [(folder / "test_stories.txt").read_text()],
    }
    answer = ask_plain_user(finished_decoder_run.output / "student", texts, width=32, stride=12)
    assert answer["generated"] == answer["expected"]
    assert len(answer["generated"]) == 6
    for split in texts:
        found = answer[split]
        perplexity = score_of(decoder_report, "student", split, "perplexity")
        assert perplexity == pytest.approx(math.exp(found["nll"] / found["tokens"]), rel=1e-5)
        # The same likelihood, shared out to words: log perplexity x count is one and the same.
        a_word = score_of(decoder_report, "student", split, "word_perplexity")
        assert a_word == pytest.approx(math.exp(found["nll"] / found["words"]), rel=1e-4)
        for arm in ("teacher", "control"):
            of_tokens, of_words = (
                math.log(score_of(decoder_report, arm, split, metric)) for metric in ("perplexity", "word_perplexity")
            )
            assert of_tokens * found["tokens"] == pytest.approx(of_words * found["words"])
        card = next(card["facts"] for card in decoder_report["data_cards"] if card["name"] == f"toy, {split}")
        assert (card["tokens"], card["words"]) == (found["tokens"], found["words"])


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "mistral", "gemma3_text", "gpt_neox"])
def test_every_architecture(
    architecture: str, finished_decoder_run: Any, run_recipe: Callable[[Any], dict[str, Any]]
) -> None:
    recipe = shortened(finished_decoder_run, architecture)
    recipe.content["teacher"]["from_scratch"]["architecture"] = architecture
    report = run_recipe(recipe)
    student = recipe.folder / "runs" / architecture / "student"
    assert json.loads((student / "config.json").read_text())["model_type"] == architecture
    assert report["summary"]["teacher"] == f"pre-trained here, {architecture} 2 x 32, 2 heads, 64 feed-forward"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(student), AutoTokenizer.from_pretrained(student)
    prompt = tokenizer("bright clever", return_tensors="pt")
    assert model.generate(**prompt, max_new_tokens=3, do_sample=False).shape[1] > prompt["input_ids"].shape[1]
    # Rotary positions: the likelihoods of the report come from the very weights that were delivered.
    text = (recipe.folder / "validation_stories.txt").read_text().rstrip("\n").split("\n\n")
    assert score_of(report, "student", "validation", "perplexity") == pytest.approx(
        perplexity_of(student, text), rel=1e-5
    )


def perplexity_of(student: Path, documents: list[str]) -> float:
    """With windows so wide that each document is whole."""
    import torch

    model, tokenizer = AutoModelForCausalLM.from_pretrained(student), AutoTokenizer.from_pretrained(student)
    nll, tokens = 0.0, 0
    for text in documents:
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]])
        with torch.inference_mode():
            logits_SV = model(ids[:, :-1]).logits[0]
        nll += float(torch.nn.functional.cross_entropy(logits_SV, ids[0, 1:], reduction="sum"))
        tokens += ids.shape[1] - 1
    return math.exp(nll / tokens)


def shortened(finished_run: Any, name: str) -> Any:
    """One step a training, neither control nor test split, windows that hold every document."""
    content = deepcopy(finished_run.content)
    content |= {"name": name, "control": False}
    for training in (content["teacher"]["pretraining"], content["pretraining"]["training"]):
        training |= {"steps": 1, "evaluations": 1}
    content["fine_tuning"]["training"] |= {"steps": 1, "evaluations": 1}
    del content["tasks"][0]["test"]
    content["tasks"][0] |= {"max_length": 64, "stride": 64}
    return type(finished_run)(finished_run.folder, content)


def test_text_of_which_only_the_teacher_speaks(
    finished_decoder_run: Any, run_recipe: Callable[[Any], dict[str, Any]]
) -> None:
    recipe = type(finished_decoder_run)(finished_decoder_run.folder, deepcopy(finished_decoder_run.content))
    recipe.set("name", "unlabelled")
    recipe.content["tasks"][0]["unlabelled"] = deepcopy(recipe.content["pretraining"]["corpus"])
    recipe.content["fine_tuning"]["training"] |= {"steps": None, "epochs": 1}
    report = run_recipe(recipe)
    facts = next(card["facts"] for card in report["data_cards"] if card["name"] == "toy, train")
    assert 0 < facts["rows for the teacher alone"] < facts["rows"]
    taken = {curve["arm"]: curve["steps"][-1] for curve in report["curves"] if curve["stage"] == "fine-tuning"}
    assert taken["control"] == taken["student"] > taken["teacher"]


def test_ready_teacher(
    finished_decoder_run: Any,
    run_recipe: Callable[[Any], dict[str, Any]],
    step_directory: Callable[[Path, str], Path],
    tmp_path: Path,
) -> None:
    save_gpt2(tmp_path / "gpt2", finished_decoder_run.folder / "stories.txt")
    recipe = shortened(finished_decoder_run, "ready")
    recipe.set("teacher", {"source": str(tmp_path / "gpt2")})
    report = run_recipe(recipe)
    names = [line["name"] for line in report["steps"]]
    assert "make the student" in names
    assert not [name for name in names if name in ("make the teacher", "pre-train the teacher")]
    assert str(tmp_path / "gpt2") in report["summary"]["teacher"]
    output = recipe.folder / "runs" / "ready"
    teacher = load_file(tmp_path / "gpt2" / "model.safetensors")
    student = load_file(step_directory(output, "make the student") / "model" / "model.safetensors")
    assert student.keys() == {name for name in teacher if not name.startswith("transformer.h.1.")}
    assert all(tensor.equal(teacher[name]) for name, tensor in student.items())


def save_gpt2(folder: Path, corpus: Path) -> None:
    """A GPT-2 with weights so large that its answers differ from place to place."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from lightpaff.models.tokenizers import train_tokenizer
    from lightpaff.recipe_sections import FromScratch

    sizes = FromScratch(
        architecture="gpt2", layers=2, hidden_size=32, heads=2, feed_forward=64, vocabulary_size=300, max_length=64
    )
    tokenizer = train_tokenizer(iter([corpus.read_text()]), sizes, "decoder")
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3
    )
    config.bos_token_id = config.eos_token_id = tokenizer.eos_token_id
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
