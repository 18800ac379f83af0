"""Exports for transformers are what its pipelines and auto classes open."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    pipeline,
)

from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.export_transformers import export_transformers
from lightpaff.deployment.model_card import usage_example
from lightpaff.deployment.tokenizer_writing import write_longest_text
from lightpaff.models.tokenizers import train_tokenizer
from lightpaff.recipe_families import Family
from lightpaff.recipe_sections import FromScratch
from lightpaff.runtimes import Quantisation

TEXTS = ["the quick brown fox jumps over the lazy dog", "a stitch in time saves nine"] * 3
SIZES: dict[str, Any] = {
    "layers": 2,
    "hidden_size": 16,
    "heads": 2,
    "feed_forward": 24,
    "vocabulary_size": 300,
    "max_length": 32,
}


def save_model(folder: Path, architecture: str, family: Family) -> PreTrainedModel:
    tokenizer = train_tokenizer(iter(TEXTS), FromScratch(architecture=architecture, **SIZES), family)
    rows = len(tokenizer)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    bert = BertConfig(vocab_size=rows, **sizes, id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1})
    gpt2 = GPT2Config(vocab_size=rows, n_embd=16, n_layer=2, n_head=2, eos_token_id=0, bos_token_id=0, pad_token_id=1)
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    bart = BartConfig(
        vocab_size=rows,
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        **heads,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        forced_eos_token_id=None,
    )
    model: PreTrainedModel = {
        "bert": lambda: BertForSequenceClassification(bert),
        "gpt2": lambda: GPT2LMHeadModel(gpt2),
        "bart": lambda: BartForConditionalGeneration(bart),
    }[architecture]()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize(("quantisation", "share"), [("none", 1.0), ("bf16", 0.5)])
def test_a_classifier_in_a_pipeline(quantisation: Quantisation, share: float, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", "bert", "encoder")
    export_transformers(tmp_path / "model", tmp_path / "export", quantisation)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("model", "export")]
    assert sizes[1] == pytest.approx(sizes[0] * share, rel=0.1)
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path / "export")
    assert opened.dtype == {"none": torch.float32, "bf16": torch.bfloat16}[quantisation]
    [answer] = pipeline("text-classification", model=str(tmp_path / "export"), device="cpu")("a lazy fox")
    inputs = AutoTokenizer.from_pretrained(tmp_path / "model")("a lazy fox", return_tensors="pt")
    with torch.inference_mode():
        expected = model(**inputs).logits.softmax(-1)[0]
    assert answer["score"] == pytest.approx(expected.max().item(), abs=1e-6 if quantisation == "none" else 0.02)
    assert answer["label"] == ["bad", "good"][int(expected.argmax())] or quantisation == "bf16"


def test_a_long_text_is_cut_where_the_export_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path / "model", "bert", "encoder")
    settings = tmp_path / "model" / "tokenizer_config.json"
    content = json.loads(settings.read_text())
    del content["model_max_length"]
    settings.write_text(json.dumps(content))
    export_transformers(tmp_path / "model", tmp_path / "export", "none")
    write_longest_text(tmp_path / "export", 24)
    opened = AutoTokenizer.from_pretrained(tmp_path / "export")
    assert len(opened("a lazy fox " * 999, truncation=True)["input_ids"]) == 24
    card = ExportCard("transformers", "none", "classes", max_length=24, longest_input=512, source_sha256="")
    monkeypatch.chdir(tmp_path / "export")
    exec(usage_example(card).replace("A text to read.", "a lazy fox " * 999), {})


def test_a_decoder_in_a_pipeline(tmp_path: Path) -> None:
    save_model(tmp_path / "model", "gpt2", "decoder")
    export_transformers(tmp_path / "model", tmp_path / "export", "none")
    texts = [
        pipeline("text-generation", model=str(tmp_path / name), device="cpu")(
            "a lazy", do_sample=False, max_new_tokens=5, max_length=None
        )[0]["generated_text"]
        for name in ("model", "export")
    ]
    assert texts[0] == texts[1]
    assert texts[0].startswith("a lazy")


def test_the_example_of_a_decoder_begins_with_the_start_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_model(tmp_path / "model", "gpt2", "decoder")
    export_transformers(tmp_path / "model", tmp_path / "export", "none")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "export")
    prompt = torch.tensor([[0, *tokenizer("Once upon a time", add_special_tokens=False).input_ids]])
    expected = tokenizer.decode(model.generate(prompt, max_length=32)[0], skip_special_tokens=True)
    card = ExportCard("transformers", "none", "next_tokens", max_length=48, longest_input=48, source_sha256="", start=0)
    monkeypatch.chdir(tmp_path / "export")
    exec(usage_example(card), {})
    assert capsys.readouterr().out == f"{expected}\n"


def test_an_encoder_decoder_in_its_auto_class(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", "bart", "encoder-decoder")
    export_transformers(tmp_path / "model", tmp_path / "export", "none")
    inputs = AutoTokenizer.from_pretrained(tmp_path / "export")("a lazy fox", return_tensors="pt")
    opened = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "export")
    rows = [one.generate(**inputs, max_new_tokens=6).tolist() for one in (model, opened)]
    assert rows[0] == rows[1]


def test_shards_stay_shards(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", "gpt2", "decoder")
    (tmp_path / "model" / "model.safetensors").unlink()
    model.save_pretrained(tmp_path / "model", max_shard_size="20KB")
    export_transformers(tmp_path / "model", tmp_path / "export", "bf16")
    opened = GPT2LMHeadModel.from_pretrained(tmp_path / "export")
    for name, parameter in model.named_parameters():
        assert torch.equal(opened.get_parameter(name), parameter.to(torch.bfloat16)), name
    index, before = (
        json.loads((tmp_path / folder / "model.safetensors.index.json").read_text()) for folder in ("export", "model")
    )
    assert index["metadata"]["total_size"] * 2 == before["metadata"]["total_size"]
