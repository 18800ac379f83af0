"""Texts through exported decoders and encoder-decoders, without torch, transformers or, for the example, lightpaff."""

import itertools
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.export_ctranslate2 import export_ctranslate2
from lightpaff.deployment.export_onnx import export_onnx
from lightpaff.deployment.loading import load
from lightpaff.deployment.model_card import usage_example
from lightpaff.deployment.onnx_runtime import OnnxTokenRunner
from lightpaff.deployment.text_loading import Written
from lightpaff.errors import UserError
from lightpaff.evaluation.generation import Search, generate
from lightpaff.models.tokenizers import train_tokenizer
from lightpaff.recipe_families import Family
from lightpaff.recipe_sections import FromScratch

TEXTS = ["the quick brown fox jumps over the lazy dog", "a stitch in time saves nine", "été à la plage"]
SIZES: dict[str, Any] = {
    "layers": 2,
    "hidden_size": 16,
    "heads": 2,
    "feed_forward": 24,
    "vocabulary_size": 300,
    "max_length": 48,
}
CONTINUER = ExportCard("ctranslate2", "none", "next_tokens", max_length=48, longest_input=48, source_sha256="0" * 64)
ONNX_CONTINUER = replace(CONTINUER, format="onnx")
WRITER = ExportCard(
    "ctranslate2",
    "none",
    "target_tokens",
    max_length=12,
    longest_input=48,
    source_sha256="0" * 64,
    decoder_start="<ne>",
    source_prefix="<en>",
    beams=3,
    length_penalty=0.8,
    max_target_length=9,
)
BLOCKED = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise AssertionError(f"imported {{name}}")
sys.meta_path.insert(0, Refuse())
"""


def make_tokenizer(architecture: str, family: Family, languages: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    return train_tokenizer(iter(TEXTS * 3), FromScratch(architecture=architecture, **SIZES), family, languages)


def save_and_export(model: PreTrainedModel, tokenizer: Any, folder: Path, decoder_start: str | None) -> Path:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    export_ctranslate2(folder / "model", folder / "export", "none", decoder_start)
    return folder / "export"


@pytest.fixture
def decoder(tmp_path: Path) -> tuple[PreTrainedModel, Any, Path]:
    tokenizer = make_tokenizer("gpt2", "decoder")
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), n_positions=48, n_embd=16, n_layer=2, n_head=2)
    ).eval()
    return model, tokenizer, save_and_export(model, tokenizer, tmp_path, None)


@pytest.fixture
def onnx_decoder(decoder: tuple[PreTrainedModel, Any, Path], tmp_path: Path) -> tuple[PreTrainedModel, Any, Path]:
    model, tokenizer, _ = decoder
    (tmp_path / "onnx").mkdir()
    export_onnx(tmp_path / "model", tmp_path / "onnx")
    tokenizer.backend_tokenizer.save(str(tmp_path / "onnx" / "tokenizer.json"))
    return model, tokenizer, tmp_path / "onnx"


@pytest.fixture
def encoder_decoder(tmp_path: Path) -> tuple[PreTrainedModel, Any, Path]:
    tokenizer = make_tokenizer("bart", "encoder-decoder", ("en", "ne"))
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = BartConfig(vocab_size=len(tokenizer), d_model=16, encoder_layers=2, decoder_layers=1, **heads, **special)
    model = BartForConditionalGeneration(config).eval()
    return model, tokenizer, save_and_export(model, tokenizer, tmp_path, "<ne>")


def run_without(blocked: set[str], script: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(blocked=blocked) + script], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def load_as(card: ExportCard, export: Path) -> Any:
    card.write(export)
    return load(export, threads=1)


def continued(model: PreTrainedModel, ids: list[int], new_tokens: int) -> list[int]:
    with torch.inference_mode():
        for _ in range(new_tokens):
            ids = [*ids, int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
    return ids


def test_prompts_are_continued(decoder: tuple[PreTrainedModel, Any, Path]) -> None:
    model, tokenizer, export = decoder
    found = load_as(CONTINUER, export)(TEXTS[:2], new_tokens=6)
    for prompt, text in zip(TEXTS, found, strict=False):
        whole = continued(model, tokenizer(prompt)["input_ids"], 6)
        special = set(tokenizer.all_special_ids)
        assert not special & set(whole), "the test has to be about ordinary tokens"
        assert prompt + text == tokenizer.decode(whole)


@pytest.mark.parametrize("kind", ["decoder", "onnx_decoder"])
def test_a_prompt_that_is_whole_is_read_from_the_start_token_on(kind: str, request: pytest.FixtureRequest) -> None:
    model, tokenizer, export = request.getfixturevalue(kind)
    start, ids = tokenizer.eos_token_id, tokenizer(TEXTS[0])["input_ids"]
    continuer = load_as(replace(CARDS[kind], start=start), export)
    [text] = continuer(TEXTS[0], new_tokens=6)
    assert TEXTS[0] + text == tokenizer.decode(continued(model, [start, *ids], 6)[1:])
    plain = load_as(CARDS[kind], export)
    assert [text] != plain(TEXTS[0], new_tokens=6), "the test has to be about a start token that matters"
    long = " ".join(TEXTS * 4)
    assert continuer(long, new_tokens=8) == plain(long, new_tokens=8)


def test_a_long_prompt_loses_its_beginning_and_an_empty_one_is_refused(
    decoder: tuple[PreTrainedModel, Any, Path],
) -> None:
    _, tokenizer, export = decoder
    continuer = load_as(CONTINUER, export)
    last = tokenizer.decode(tokenizer(" ".join(TEXTS * 4))["input_ids"][-40:])
    assert continuer(" ".join(TEXTS * 4), new_tokens=8) == continuer(last, new_tokens=8)
    with pytest.raises(UserError, match="number 2 is empty"):
        continuer(["a", ""])
    with pytest.raises(UserError, match="give 1 to 47"):
        continuer("a", new_tokens=48)


def test_a_continuation_ends_at_a_special_token(decoder: tuple[PreTrainedModel, Any, Path]) -> None:
    _, tokenizer, export = decoder
    continuer = load_as(CONTINUER, export)
    first, second, end = (*tokenizer("ab")["input_ids"][:2], tokenizer.eos_token_id)
    begun = Written("", 1, 0, is_ended=False, ids=(first,))
    written = Written("b", 1, 1, is_ended=True, ids=(first, second))
    assert continuer._written_after(begun, [second, end, second]) == written
    assert continuer._written_after(begun, [second]) == replace(written, is_ended=False)


@pytest.mark.parametrize("shares_scales", [False, True])
def test_what_is_written_in_pieces_is_what_is_written_at_once(
    shares_scales: bool, onnx_decoder: tuple[PreTrainedModel, Any, Path]
) -> None:
    export = onnx_decoder[2]
    card = replace(ONNX_CONTINUER, quantisation="int8" if shares_scales else "none")
    continuer = load_as(card, export)
    long = " ".join(TEXTS * 4)
    whole = continuer.write([*TEXTS, long], 20)
    pieces = continuer.begin([*TEXTS, long], 20)
    assert [one.is_cut for one in pieces] == [False, False, False, True]
    for tokens in (3, 4, 13):
        before, pieces = pieces, continuer.write_on(pieces, tokens)
        assert all(one.text.startswith(other.text.rstrip("\ufffd")) for one, other in zip(pieces, before, strict=True))
    assert pieces == whole


def test_a_model_whose_whole_room_is_little_still_answers(onnx_decoder: tuple[PreTrainedModel, Any, Path]) -> None:
    export = onnx_decoder[2]
    continuer = load_as(replace(ONNX_CONTINUER, max_length=16), export)
    assert continuer(TEXTS[0]) == continuer(TEXTS[0], new_tokens=8)
    assert load_as(replace(ONNX_CONTINUER, max_length=90), export).usual_tokens == 32


def test_in_8_bits_what_was_written_is_read_as_it_was_written(
    decoder: tuple[PreTrainedModel, Any, Path], tmp_path: Path
) -> None:
    _, tokenizer, _ = decoder
    (tmp_path / "int8").mkdir()
    export_onnx(tmp_path / "model", tmp_path / "int8", "int8")
    runner = OnnxTokenRunner(tmp_path / "int8", threads=1)
    prompts = [tokenizer(text)["input_ids"] for text in TEXTS]
    for prompt, other in itertools.pairwise(prompts):
        [whole] = runner.continue_prompts([prompt], 12)
        assert runner.write_on(prompt, whole[:5], 7) == whole[5:]
        assert runner.write_on(prompt, other[:5], 7) != whole[5:], "the test has to be about tokens that matter"


def test_sources_are_written_about_as_in_the_evaluation(encoder_decoder: tuple[PreTrainedModel, Any, Path]) -> None:
    model, tokenizer, export = encoder_decoder
    found = load_as(WRITER, export)(TEXTS)
    english, nepali = tokenizer.convert_tokens_to_ids(["<en>", "<ne>"])
    for text, written in zip(TEXTS, found, strict=True):
        source = [english, *tokenizer(text, truncation=True, max_length=11)["input_ids"]]
        ids_BS = torch.tensor([source])
        [row] = generate(
            model,
            {"input_ids": ids_BS, "attention_mask": torch.ones_like(ids_BS)},
            Search(decoder_start_id=nepali, end_id=2, padding_id=0, beams=3, length_penalty=0.8, max_new_tokens=9),
        )
        assert written == tokenizer.decode(row.tolist(), skip_special_tokens=True).strip()


CARDS = {"decoder": CONTINUER, "onnx_decoder": ONNX_CONTINUER, "encoder_decoder": WRITER}


@pytest.mark.parametrize("kind", CARDS)
def test_neither_torch_nor_transformers_is_needed(kind: str, request: pytest.FixtureRequest) -> None:
    export = request.getfixturevalue(kind)[2]
    expected = load_as(CARDS[kind], export)(TEXTS)
    script = f"""
from lightpaff.deployment.loading import load
print(load(".", threads=1)({TEXTS!r}))
"""
    assert run_without({"torch", "transformers"}, script, export) == f"{expected}\n"


@pytest.mark.parametrize("kind", CARDS)
def test_the_example_of_the_readme_runs_without_lightpaff(kind: str, request: pytest.FixtureRequest) -> None:
    model, tokenizer, export = request.getfixturevalue(kind)
    start = tokenizer.eos_token_id
    card = replace(CARDS[kind], start=start)
    printed = run_without({"torch", "transformers", "lightpaff"}, usage_example(card), export)
    if kind != "encoder_decoder":
        assert printed.startswith("Once upon a time")
        prompt = [start, *tokenizer("Once upon a time", add_special_tokens=False)["input_ids"]]
        # CTranslate2 does not count the first token.
        whole = continued(model, prompt, 32 - len(prompt) + (kind == "decoder"))
        assert printed == tokenizer.decode(whole, skip_special_tokens=True) + "\n"
    if kind == "encoder_decoder":
        # The example cuts no text.
        uncut = ExportCard(**vars(card) | {"max_length": 48})
        assert printed.strip() == load_as(uncut, export)("A text to read.")[0]


def test_of_a_long_source_it_is_told_that_it_was_cut(encoder_decoder: tuple[PreTrainedModel, Any, Path]) -> None:
    written = load_as(WRITER, encoder_decoder[2]).write(["a", TEXTS[0]], 3)
    assert [(one.is_cut, one.read) for one in written] == [(False, 3), (True, 12)]


def test_what_does_not_fit_is_refused(encoder_decoder: tuple[PreTrainedModel, Any, Path]) -> None:
    export = encoder_decoder[2]
    with pytest.raises(UserError, match="source_prefix <fr> is no token"):
        load_as(replace(WRITER, source_prefix="<fr>"), export)
    (export / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json: cannot be read"):
        load_as(WRITER, export)
