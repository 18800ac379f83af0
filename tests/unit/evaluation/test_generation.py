import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BartConfig, BartForConditionalGeneration, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from lightpaff.evaluation.generation import Search, generate

PADDING, END, ENGLISH, GERMAN = 1, 2, 4, 5
V = 40


def tiny_bart() -> BartForConditionalGeneration:
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=V, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64,
        pad_token_id=PADDING, eos_token_id=END, bos_token_id=0, init_std=0.6, attn_implementation="eager",
    )  # fmt: skip
    model = BartForConditionalGeneration(config).eval()
    with torch.no_grad():  # So that some rows end early and others do not.
        model.final_logits_bias[0, END] = 2.0
    return model


def tiny_gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=V, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.6, bos_token_id=END,
        eos_token_id=END, attn_implementation="eager",
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def ragged_rows(seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(6, V, size=length).tolist() for length in (9, 3, 6, 1, 12, 4)]


def padded(rows: list[list[int]], left: bool = False) -> dict[str, Tensor]:
    width = max(map(len, rows))
    ids_BS = torch.full((len(rows), width), PADDING)
    mask_BS = torch.zeros_like(ids_BS)
    for row, ids in enumerate(rows):
        place = slice(width - len(ids), None) if left else slice(len(ids))
        ids_BS[row, place], mask_BS[row, place] = torch.tensor(ids), 1
    return {"input_ids": ids_BS, "attention_mask": mask_BS}


def write(model: PreTrainedModel, inputs: dict[str, Tensor], **changes: Any) -> list[list[int]]:
    options: dict[str, Any] = {
        "decoder_start_id": ENGLISH, "end_id": END, "padding_id": PADDING, "beams": 1, "length_penalty": 1.0,
        "max_new_tokens": 12, **changes,
    }  # fmt: skip
    return [row.tolist() for row in generate(model, inputs, Search(**options))]


@torch.no_grad()
def greedy(model: PreTrainedModel, source: list[int], start: int | None, most: int = 12) -> list[int]:
    """One token at a time from plain logits, without a cache."""
    written: list[int] = []
    while len(written) < most and END not in written:
        if start is None:
            logits_V = model(torch.tensor([source + written])).logits[0, -1]
        else:
            decoder = torch.tensor([[start, *written]])
            logits_V = model(torch.tensor([source]), decoder_input_ids=decoder).logits[0, -1]
        logits_V[PADDING] = -torch.inf
        written.append(int(logits_V.argmax()))
    return written


@torch.no_grad()
def log_probability(model: PreTrainedModel, source: list[int], written: list[int]) -> float:
    decoder = torch.tensor([[ENGLISH, *written[:-1]]])
    logits_TV = model(torch.tensor([source]), decoder_input_ids=decoder).logits[0]
    return float(logits_TV.log_softmax(-1).gather(1, torch.tensor(written)[:, None]).sum())


def test_one_beam_is_greedy_from_the_language_asked_for() -> None:
    model, rows = tiny_bart(), ragged_rows()
    english, german = ([greedy(model, row, start) for row in rows] for start in (ENGLISH, GERMAN))
    assert english != german
    assert len({len(row) for row in english}) > 1, "rows that end at different places are what this is about"
    assert write(model, padded(rows)) == english
    assert write(model, padded(rows), decoder_start_id=GERMAN) == german


def test_the_token_that_has_to_come_first_is_written_and_the_rest_follows_it() -> None:
    model, rows = tiny_bart(), ragged_rows()
    free, made = (write(model, padded(rows), first_written_id=first) for first in (None, GERMAN))
    assert all(row[0] != GERMAN for row in free)
    assert all(row[0] == GERMAN for row in made)
    assert made[0][1:] != free[0][1:]


@pytest.mark.parametrize("beams", [1, 4])
def test_a_batch_is_as_one_at_a_time(beams: int) -> None:
    model, rows = tiny_bart(), ragged_rows(1)
    together = write(model, padded(rows), beams=beams)
    assert together == [write(model, padded([row]), beams=beams)[0] for row in rows]
    assert {row[-1] == END for row in together} == {True, False}
    assert all(PADDING not in row and END not in row[:-1] for row in together)


def test_beams_find_what_is_at_least_as_likely() -> None:
    model, rows = tiny_bart(), ragged_rows(2)
    found = write(model, padded(rows), beams=4, length_penalty=0.0)
    by_one = write(model, padded(rows))
    gains = [
        log_probability(model, row, beam) - log_probability(model, row, one)
        for row, beam, one in zip(rows, found, by_one, strict=True)
    ]
    assert max(gains) > 0.01
    assert np.mean(gains) > 0


def test_a_larger_length_penalty_prefers_longer_texts() -> None:
    model, inputs = tiny_bart(), padded(ragged_rows(2))
    short, long = (write(model, inputs, beams=4, length_penalty=penalty) for penalty in (-2.0, 3.0))
    assert sum(map(len, short)) < sum(map(len, long))


def test_what_the_model_brings_along_changes_nothing() -> None:
    plain, laden = tiny_bart(), tiny_bart()
    own = {"min_length": 8, "no_repeat_ngram_size": 1, "forced_bos_token_id": 7, "forced_eos_token_id": 9}
    laden.generation_config.update(**own, repetition_penalty=5.0, bad_words_ids=[[END]], num_beams=3, do_sample=True)
    laden.train()
    inputs = padded(ragged_rows())
    for beams in (1, 3):
        assert write(laden, inputs, beams=beams) == write(plain, inputs, beams=beams)
    assert {name: getattr(laden.generation_config, name) for name in own} == own, "it is only set aside"


def test_a_decoder_writes_on_from_prompts_padded_on_the_left() -> None:
    model, rows = tiny_gpt2(), ragged_rows()
    found = write(model, padded(rows, left=True), decoder_start_id=None)
    assert found == [greedy(model, row, None) for row in rows]
    together = write(model, padded(rows, left=True), decoder_start_id=None, beams=3)
    assert together == [write(model, padded([row]), decoder_start_id=None, beams=3)[0] for row in rows]


def test_padding_that_is_also_the_end_can_be_written() -> None:
    model = tiny_bart()
    with torch.no_grad():
        model.final_logits_bias[0, END] = 100.0
    assert write(model, padded([[7, 8], [9]]), padding_id=END) == [[END], [END]]


def test_nothing_is_said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    for beams in (1, 2):
        write(tiny_bart(), padded(ragged_rows()), beams=beams, length_penalty=0.6)
        write(tiny_gpt2(), padded(ragged_rows(), left=True), beams=beams, decoder_start_id=None)
    assert caplog.records == []
