"""The teacher in the shadow: what of it cannot be opened, and what becomes of answers that it does not give."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from lightpaff.deployment.card import ExportCard
from lightpaff.errors import UserError
from lightpaff.models.tokenizers import train_tokenizer
from lightpaff.recipe_sections import FromScratch
from lightpaff.serving.shadow import Shadow

STEP = "finetune-0/model"
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 32,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    made = FromScratch(layers=1, hidden_size=16, heads=2, feed_forward=16, vocabulary_size=300, max_length=32)
    tokenizer = train_tokenizer(["warm and bright", "cold and dull"], made, "encoder")
    tokenizer.save_pretrained(runs / "steps" / STEP)
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), num_labels=2, **SIZES))
    model.save_pretrained(runs / "steps" / STEP)
    (runs / "toy").mkdir()
    role = {"kind": "model", "arm": "teacher", "task": "toy", "folder": STEP}
    (runs / "toy" / "run.json").write_text(json.dumps({"roles": [role]}))
    return runs


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A run with a teacher of two classes, which may be changed."""
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path / "runs" / "toy"


def open_shadow(run: Path, labels: tuple[str, ...] = ("bad", "good")) -> Shadow:
    return Shadow(run, 1.0, 1, ExportCard("onnx", "none", "classes", 16, 16, "", labels=list(labels)))


def test_a_teacher_with_one_segment_reads_pairs(run: Path) -> None:
    folder = run.parent / "steps" / STEP
    model = BertForSequenceClassification(BertConfig(vocab_size=300, num_labels=2, type_vocab_size=1, **SIZES))
    model.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    answers, _ = open_shadow(run).answer([("warm", "and bright")])
    assert answers[0]["label"] in {"bad", "good"}


def lose_tokenizer(teacher: Path) -> None:
    for path in teacher.glob("tokenizer*"):
        path.unlink()


def cut(name: str) -> Callable[[Path], None]:
    return lambda teacher: (teacher / name).write_bytes((teacher / name).read_bytes()[:100])


def unlearn_classes(teacher: Path) -> None:
    BertForMaskedLM(BertConfig(vocab_size=300, **SIZES)).save_pretrained(teacher)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lose_tokenizer, "holds no tokenizer"),
        (cut("tokenizer.json"), "its tokenizer cannot be read"),
        (cut("model.safetensors"), "weights cannot be read"),
        (lambda teacher: (teacher / "model.safetensors").unlink(), "holds no model.safetensors"),
        (cut("config.json"), "is not a JSON object"),
        (shutil.rmtree, "finetune-0/model, is neither in steps beside it nor elsewhere"),
        (unlearn_classes, "its teacher gives none"),
    ],
)
def test_a_teacher_that_is_not_whole_is_refused_in_a_line(change: Callable[[Path], None], told: str, run: Path) -> None:
    change(run.parent / "steps" / STEP)
    with pytest.raises(UserError, match=told):
        open_shadow(run)


def test_a_teacher_of_other_classes_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match="has 2 classes, the export 3"):
        open_shadow(run, ("a", "b", "c"))


def test_answers_that_the_teacher_does_not_give_are_counted(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shadow, told = open_shadow(run), []

    def fail(inputs: Any) -> Any:
        raise RuntimeError("a secret text")

    [answer] = shadow.answer(["warm"])[0]
    shadow.compare(["warm"], [answer], told.append)
    monkeypatch.setattr(shadow, "answer", fail)
    with caplog.at_level(logging.WARNING, "lightpaff.serving"):
        # More than may wait: whoever failed has made room.
        for _ in range(6):
            before = len(told)
            shadow.compare(["warm", "cold"], [answer, answer], told.append)
            shadow._thread.submit(lambda: None).result(20)
            assert len(told) >= before + 2
    shadow.close()
    assert told == [True] + 12 * [None]
    assert "the teacher gave no answer (RuntimeError)" in caplog.text
    assert "secret" not in caplog.text
