"""Encoder-decoders through the whole pipeline: MASS, translation, and students that anybody can run."""

import json
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from lightpaff.pipeline.run import open_context, prepare
from lightpaff.pipeline.workload import flops_of, workload_of
from lightpaff.recipe import Recipe

# What a user of the student runs: transformers alone, with lightpaff made impossible to import.
PLAIN_USER = """
import json, sys
sys.modules["lightpaff"] = None
from importlib.metadata import version
import torch
from sacrebleu import corpus_bleu, corpus_chrf
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
torch.set_num_threads(1)
model = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1]).eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
content = json.load(sys.stdin)
known = tokenizer.get_vocab()
hypotheses = []
for source in content["sources"]:
    ids = [*([known["<en>"]] if "<en>" in known else []), *tokenizer(source)["input_ids"]]
    written = model.generate(torch.tensor([ids]))
    hypotheses.append(tokenizer.decode(written[0], skip_special_tokens=True).strip())
references = [content["references"]]
print(json.dumps({
    "hypotheses": hypotheses,
    "bleu": corpus_bleu(hypotheses, references).score / 100,
    "chrf": corpus_chrf(hypotheses, references).score / 100,
    "version": version("sacrebleu"),
}))
"""


def ask_plain_user(student: Path, rows: list[dict[str, str]]) -> dict[str, Any]:
    finished = subprocess.run(
        [sys.executable, "-c", PLAIN_USER, str(student)],
        input=json.dumps({"sources": [row["en"] for row in rows], "references": [row["ne"] for row in rows]}),
        capture_output=True,
        text=True,
        check=True,
        cwd=student,
    )
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def check_student(report: dict[str, Any], output: Path, rows: list[dict[str, str]], predicted: Path) -> list[str]:
    """A plain user gets from the student what the report says; the different texts that it writes."""
    split = predicted.stem
    answer = ask_plain_user(output / "student", rows)
    stored = read_rows(predicted)
    assert [row["source"] for row in stored] == [row["en"] for row in rows]
    assert [row["hypothesis"] for row in stored] == answer["hypotheses"]
    scores = {(row["arm"], row["split"], row["metric"]): row["value"] for row in report["rows"]}
    for metric in ("bleu", "chrf"):
        assert scores["student", split, metric] == pytest.approx(answer[metric], abs=1e-9)
        assert report["tasks"][0]["notes"][metric].endswith(f"version:{answer['version']}")
    return sorted(set(answer["hypotheses"]))


def test_report_is_complete(
    finished_encoder_decoder_run: Any,
    read_report: Callable[[Path], dict[str, Any]],
    check_report: Callable[..., None],
    step_directory: Callable[[Path, str], Path],
) -> None:
    recipe, output = finished_encoder_decoder_run, finished_encoder_decoder_run.output
    report = read_report(output)
    check_report(report, recipe.content)
    names = [line["name"] for line in report["steps"]]
    assert "let the teacher write the targets of toy" in names
    assert not [name for name in names if "soft targets" in name or "TF-IDF" in name]
    config = json.loads((output / "student" / "config.json").read_text())
    assert (config["encoder_layers"], config["decoder_layers"]) == (2, 1)
    kl = {(curve["arm"], curve["stage"]): bool(curve["divergence"]) for curve in report["curves"]}
    assert kl == {(arm, stage): arm == "student" for arm, stage in kl}
    rows = read_rows(recipe.folder / "test_translations.jsonl")
    written = {
        arm: [
            row["hypothesis"]
            for row in read_rows(step_directory(output, f"predict with the {arm} on toy, seed 0") / "test.jsonl")
        ]
        for arm in ("teacher", "student", "control")
    }
    assert [(sample["source"], sample["references"]) for sample in report["samples"]] == [
        (row["en"], [row["ne"]]) for row in rows
    ]
    for arm, hypotheses in written.items():
        assert [sample[arm] for sample in report["samples"]] == hypotheses
    notes = report["tasks"][0]["notes"]
    assert notes["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert notes["chrf"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    page = (output / "report" / "index.html").read_text()
    assert rows[0]["ne"] in page


def test_student_needs_no_lightpaff(
    finished_encoder_decoder_run: Any,
    read_report: Callable[[Path], dict[str, Any]],
    step_directory: Callable[[Path, str], Path],
) -> None:
    recipe, output = finished_encoder_decoder_run, finished_encoder_decoder_run.output
    predicted = step_directory(output, "predict with the student on toy, seed 0") / "test.jsonl"
    check_student(read_report(output), output, read_rows(recipe.folder / "test_translations.jsonl"), predicted)


@pytest.mark.parametrize("architecture", ["mbart", "marian", "m2m_100", "t5", "mt5"])
def test_every_architecture(
    architecture: str, finished_encoder_decoder_run: Any, run_recipe: Callable[[Any], dict[str, Any]]
) -> None:
    recipe = shortened(finished_encoder_decoder_run, architecture)
    recipe.content["teacher"]["from_scratch"]["architecture"] = architecture
    report = run_recipe(recipe)
    student = recipe.folder / "runs" / architecture / "student"
    assert json.loads((student / "config.json").read_text())["model_type"] == architecture
    assert report["summary"]["teacher"] == f"pre-trained here, {architecture} 2-2 x 32, 2 heads, 64 feed-forward"
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(student), AutoTokenizer.from_pretrained(student)
    ids_BT = model.generate(**tokenizer("bright clever", return_tensors="pt"), max_new_tokens=3)
    assert tokenizer.convert_ids_to_tokens(int(ids_BT[0, 0])) == "<ne>"
    assert 1 < ids_BT.shape[1] <= 4


def shortened(finished_run: Any, name: str) -> Any:
    """One step a training, neither control nor test split, greedy, short targets."""
    content = deepcopy(finished_run.content)
    content |= {"name": name, "control": False}
    for training in (content["teacher"]["pretraining"], content["pretraining"]["training"]):
        training |= {"steps": 1, "evaluations": 1}
    content["fine_tuning"]["training"] |= {"steps": 1, "evaluations": 1}
    del content["tasks"][0]["test"]
    content["tasks"][0] |= {
        "max_target_length": 8,
        "generation": {"beams": 1, "length_penalty": 2.0},
        "sequence_distillation": None,
    }
    return type(finished_run)(finished_run.folder, content)


@pytest.mark.parametrize(
    ("kind", "budget"), [pytest.param("live", {"epochs": 1}, marks=pytest.mark.slow), ("sampled", {"tokens": 6000})]
)
def test_the_teacher_writes_what_nobody_did(
    kind: str, budget: dict[str, int], finished_encoder_decoder_run: Any, run_recipe: Callable[[Any], dict[str, Any]]
) -> None:
    recipe = shortened(finished_encoder_decoder_run, f"unlabelled-{kind}")
    rows = read_rows(recipe.folder / "validation_translations.jsonl")
    (recipe.folder / "sources.jsonl").write_text("".join(json.dumps({"en": row["en"]}) + "\n" for row in rows))
    recipe.content["control"] = True
    recipe.content["tasks"][0] |= {"unlabelled": ["sources.jsonl"], "sequence_distillation": {"ratio": 0.5}}
    recipe.content["fine_tuning"]["training"] |= {"steps": None, **budget}
    recipe.set("fine_tuning.distillation", {"weight": 0.5, "targets": {"kind": kind}})
    report = run_recipe(recipe)
    facts = next(card["facts"] for card in report["data_cards"] if card["name"] == "toy, train")
    assert facts["without a target"] == len(rows) < facts["rows"]
    taken = {curve["arm"]: curve["steps"][-1] for curve in report["curves"] if curve["stage"] == "fine-tuning"}
    # The control has fewer rows to learn from, and other texts, and as many steps.
    assert taken["control"] == taken["student"] > 1
    assert "epochs" not in budget or taken["student"] > taken["teacher"]


def test_ready_teacher_without_languages(
    finished_encoder_decoder_run: Any,
    run_recipe: Callable[[Any], dict[str, Any]],
    step_directory: Callable[[Path, str], Path],
    tmp_path: Path,
) -> None:
    rows = read_rows(finished_encoder_decoder_run.folder / "validation_translations.jsonl")
    save_bart(tmp_path / "bart", [text for row in rows for text in row.values()])
    recipe = shortened(finished_encoder_decoder_run, "ready")
    recipe.set("teacher", {"source": str(tmp_path / "bart")})
    recipe.set("pretraining.corpus", [{"path": "train_translations.jsonl", "text": "ne"}])
    del recipe.content["tasks"][0]["languages"]
    recipe.content["tasks"][0] |= {"max_target_length": 24, "generation": {"beams": 2}}
    report = run_recipe(recipe)
    names = [line["name"] for line in report["steps"]]
    assert not [name for name in names if name in ("make the teacher", "pre-train the teacher", "train the tokenizer")]
    output = recipe.folder / "runs" / "ready"
    teacher = load_file(tmp_path / "bart" / "model.safetensors")
    student = load_file(step_directory(output, "make the student") / "model" / "model.safetensors")
    # Of the decoder's two layers the first.
    assert student.keys() == {name for name in teacher if not name.startswith("model.decoder.layers.1.")}
    assert all(tensor.equal(teacher[name]) for name, tensor in student.items())
    predicted = step_directory(output, "predict with the student on toy, seed 0") / "validation.jsonl"
    different = check_student(report, output, rows, predicted)
    assert len(different) > len(rows) // 2


def save_bart(folder: Path, texts: list[str]) -> None:
    """A BART with weights so large that it writes another text for every source."""
    from transformers import BartConfig, BartForConditionalGeneration

    from lightpaff.models.tokenizers import train_tokenizer
    from lightpaff.recipe_sections import FromScratch

    sizes = FromScratch(
        architecture="bart", layers=2, hidden_size=32, heads=2, feed_forward=64, vocabulary_size=300, max_length=64
    )
    tokenizer = train_tokenizer(iter(texts), sizes, "encoder-decoder")
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        init_std=0.6,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
    )
    model = BartForConditionalGeneration(config)
    # Its own habits are not the recipe's.
    model.generation_config.update(no_repeat_ngram_size=1, min_length=20)
    # It hardly ever writes bytes, which by themselves are no text.
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    model.final_logits_bias[0, [name.startswith("<0x") for name in names]] = -30.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_what_the_teacher_writes_once_costs_once(finished_encoder_decoder_run: Any) -> None:
    recipe = Recipe.load(finished_encoder_decoder_run.folder / "recipe.yaml", ["seeds.fine_tuning=[0, 1, 2]"])
    context = open_context(recipe, finished_encoder_decoder_run.output)
    graph, _ = prepare(context, [])
    students = [one for one in graph.trainings if one.stage == "fine-tuning" and one.supervision is not None]
    costs = [flops_of(context, one, workload_of(context, one)).once for one in students]
    assert len(costs) == 3
    assert costs[0] > 0
    assert costs[1:] == [0, 0]
