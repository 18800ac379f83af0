from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
)

from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.export_transformers import export_transformers
from lightpaff.deployment.pytorch_runtime import PyTorchClassRunner, PyTorchTextRunner, PyTorchTokenRunner
from lightpaff.errors import UserError

V, PADDING, END = 40, 1, 2


def saved(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def tiny_bert() -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=V, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, num_labels=3, initializer_range=0.5,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


def tiny_gpt2() -> GPT2LMHeadModel:
    # Every token ends a text, so that one that stops there is caught.
    config = GPT2Config(
        vocab_size=V, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.6,
        bos_token_id=0, eos_token_id=list(range(V)),
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def tiny_bart() -> BartForConditionalGeneration:
    config = BartConfig(
        vocab_size=V, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64,
        pad_token_id=PADDING, eos_token_id=END, bos_token_id=0, decoder_start_token_id=3, init_std=0.6,
    )  # fmt: skip
    model = BartForConditionalGeneration(config).eval()
    with torch.no_grad():  # So that it ends before it must.
        model.final_logits_bias[0, END] = 1.0
    return model


def test_logits_are_the_models_whatever_the_padding(tmp_path: Path) -> None:
    model = tiny_bert()
    rows = [[5, 6, 7, 8], [9, 10]]
    ids_BS, mask_BS = np.array([rows[0], [*rows[1], 0, 0]]), np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
    segments_BS = np.array([[0, 0, 1, 1], [0, 1, 0, 0]])
    logits_BV = PyTorchClassRunner(saved(model, tmp_path), threads=1).logits(ids_BS, mask_BS, segments_BS)
    with torch.no_grad():
        expected = [
            model(torch.tensor([ids]), token_type_ids=torch.from_numpy(segments[None, : len(ids)])).logits[0]
            for ids, segments in zip(rows, segments_BS, strict=True)
        ]
    assert logits_BV.dtype == np.float32
    np.testing.assert_allclose(logits_BV, torch.stack(expected).numpy(), atol=1e-5)


def test_bf16_is_close_and_not_the_same(tmp_path: Path) -> None:
    directory = saved(tiny_bert(), tmp_path)
    ids_BS = np.arange(5, 17).reshape(2, 6)
    exact = PyTorchClassRunner(directory, 1).logits(ids_BS, np.ones_like(ids_BS))
    rough = PyTorchClassRunner(directory, 1, precision="bf16").logits(ids_BS, np.ones_like(ids_BS))
    assert rough.dtype == np.float32
    assert 0 < np.abs(exact - rough).max() < 0.1


def test_an_export_in_bf16_computes_as_transformers_opens_it(tmp_path: Path) -> None:
    export_transformers(saved(tiny_bert(), tmp_path / "model"), tmp_path / "export", "bf16")
    ExportCard("transformers", "bf16", "classes", 32, longest_input=32, source_sha256="").write(tmp_path / "export")
    ids_BS = np.arange(5, 17).reshape(2, 6)
    found = PyTorchClassRunner(tmp_path / "export").logits(ids_BS, np.ones_like(ids_BS))
    opened = BertForSequenceClassification.from_pretrained(tmp_path / "export", attn_implementation="sdpa").eval()
    with torch.no_grad():
        expected = opened(torch.from_numpy(ids_BS), attention_mask=torch.ones(2, 6)).logits
    assert expected.dtype == torch.bfloat16
    np.testing.assert_array_equal(found, expected.float().numpy())


def test_threads_are_left_as_they_are_unless_told(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        PyTorchClassRunner(saved(tiny_bert(), tmp_path))
        assert torch.get_num_threads() == 1
        PyTorchClassRunner(tmp_path, threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_prompts_of_unlike_lengths_go_on_greedily_beyond_the_end_token(tmp_path: Path) -> None:
    model = tiny_gpt2()
    prompts = [[5, 6, 7, 8, 9], [10, 11]]
    written = PyTorchTokenRunner(saved(model, tmp_path), 1).continue_prompts(prompts, new_tokens=6)
    for prompt, new in zip(prompts, written, strict=True):
        known = list(prompt)
        for _ in range(6):
            with torch.no_grad():
                known.append(int(model(torch.tensor([known])).logits[0, -1].argmax()))
        assert new == known[len(prompt) :]


def test_nll_is_of_every_token_after_the_first(tmp_path: Path) -> None:
    model = tiny_gpt2()
    rows = [[5, 6, 7, 8], [9, 10]]
    found = PyTorchTokenRunner(saved(model, tmp_path), 1).nll(rows)
    assert [len(nll) for nll in found] == [3, 1]
    for row, nll in zip(rows, found, strict=True):
        with torch.no_grad():
            mean = float(model(torch.tensor([row]), labels=torch.tensor([row])).loss)
        assert nll.mean() == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_texts_come_without_start_and_end(tmp_path: Path, beams: int) -> None:
    model = tiny_bart()
    runner = PyTorchTextRunner(saved(model, tmp_path), 1)
    sources = [[5, 6, 7, 8, 9, END], [10, 11, END]]
    together = runner.write(sources, beams=beams, length_penalty=1.0, max_tokens=8)
    alone = [runner.write([source], beams=beams, length_penalty=1.0, max_tokens=8)[0] for source in sources]
    assert together == alone
    assert all(len(row) <= 8 and not {END, PADDING} & set(row) for row in together)
    assert any(together)
    if beams == 1:
        with torch.no_grad():
            first = model(torch.tensor([sources[0]]), decoder_input_ids=torch.tensor([[3]])).logits[0, -1]
        assert together[0][:1] in ([int(first.argmax())], [])


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no config.json"):
        PyTorchClassRunner(tmp_path)
