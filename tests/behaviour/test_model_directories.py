"""Model directories as people have them: opened as plain transformers opens them, or refused in one line by `plan`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM

from lightpaff.models.architecture import CLASSES, MASKED_TOKENS
from lightpaff.models.opening import open_headed
from tests.behaviour.model_changes import WEIGHTS, Change, edit_config, edit_tensors

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"


@pytest.fixture
def teacher(finished_run: Any, tmp_path: Path) -> Path:
    """A copy of the finished run's pre-trained BERT of two layers."""
    steps = json.loads((finished_run.output / "run.json").read_text())["steps"]
    source = finished_run.output.parent / "steps" / steps["pre-train the teacher"] / "model"
    return Path(shutil.copytree(source, tmp_path / "teacher"))


def plan(recipe: Any, source: Path, run_cli: Callable[..., Any]) -> Any:
    recipe.set("teacher", {"source": str(source)}).set("pretraining", None)
    return run_cli("plan", recipe.write(), "--output", recipe.output)


def add_layers(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if ".layer.1." in name]:
        tensors[name.replace(".layer.1.", ".layer.2.")] = tensors[name].clone()


def add_position_table(tensors: dict[str, torch.Tensor]) -> None:
    tensors["bert.encoder.layer.0.attention.self.distance_embedding.weight"] = torch.zeros(63, 16)


def to_fp8(tensors: dict[str, torch.Tensor]) -> None:
    name = "bert.encoder.layer.0.output.dense.weight"
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)


def lora(path: Path) -> None:
    for file in path.glob("*.safetensors"):
        file.unlink()
    (path / "config.json").rename(path / "adapter_config.json")


def quantised(method: str, **settings: Any) -> Change:
    return lambda path: edit_config(path, quantization_config={"quant_method": method, **settings})


REFUSED: dict[str, tuple[Change, str]] = {
    "bitsandbytes": (
        quantised("bitsandbytes", load_in_4bit=True),
        "is quantised (bitsandbytes, by its config.json); take the model that is not quantised",
    ),
    "GPTQ": (quantised("gptq", bits=4), "is quantised (gptq, by its config.json)"),
    "AWQ": (quantised("awq", bits=4), "is quantised (awq, by its config.json)"),
    "compressed-tensors": (quantised("compressed-tensors"), "is quantised (compressed-tensors, by its config.json)"),
    "fp8 without a word": (
        lambda path: edit_tensors(path, to_fp8),
        "is quantised (bert.encoder.layer.0.output.dense.weight is stored as F8_E4M3)",
    ),
    "LoRA": (lora, "is an adapter (LoRA), not a model; merge it into its base model (peft's merge_and_unload"),
    "LoRA with a config.json": (
        lambda path: (lora(path), shutil.copy(path / "adapter_config.json", path / "config.json")),
        "is an adapter (LoRA), not a model; merge it into its base model",
    ),
    "LoRA beside a whole model": (
        lambda path: (path / "adapter_config.json").write_text("{}"),
        "is an adapter (LoRA), not a model; merge it into its base model",
    ),
    **{
        f"a git-lfs pointer for {name}": (
            lambda path, name=name: (path / name).write_text(POINTER),
            f"{name} is a git-lfs pointer, not the file itself; run git lfs pull there",
        )
        for name in (WEIGHTS, "config.json", "tokenizer.json", "tokenizer_config.json")
    },
    "more layers than the config says": (
        lambda path: edit_tensors(path, add_layers),
        "holds 16 tensors that its config.json does not foresee, such as bert.encoder.layer.2.attention",
    ),
    "relative positions": (
        lambda path: edit_tensors(path, add_position_table),
        "holds 1 tensors that its config.json does not foresee, such as bert.encoder.layer.0.attention.self.distance",
    ),
    "heads that do not divide": (lambda path: edit_config(path, num_attention_heads=3), "its weights do not fit"),
    "other sizes": (
        lambda path: edit_config(path, intermediate_size=48),
        "bert.encoder.layer.0.intermediate.dense.bias is 64 in its weights and 48 by its config.json",
    ),
    "a pickle": (
        lambda path: (path / WEIGHTS).rename(path / "pytorch_model.bin"),
        "holds pytorch_model.bin, a pickle, which can run code when it is loaded",
    ),
    "an architecture that is not known": (
        lambda path: edit_config(path, model_type="albert"),
        "model_type is 'albert' in its config.json; take a model of a known one: bert,",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_opened_right_is_refused_by_plan(
    kind: str, teacher: Path, tiny_recipe: Any, run_cli: Callable[..., Any]
) -> None:
    change, line = REFUSED[kind]
    change(teacher)
    outcome = plan(tiny_recipe, teacher, run_cli)
    assert outcome.code == 2
    assert line in outcome.message


def test_a_git_lfs_pointer_for_a_gguf(tmp_path: Path, tiny_recipe: Any, run_cli: Callable[..., Any]) -> None:
    (tmp_path / "model.gguf").write_text(POINTER)
    outcome = plan(tiny_recipe, tmp_path / "model.gguf", run_cli)
    assert outcome.code == 2
    assert "model.gguf: is a git-lfs pointer, not the file itself; run git lfs pull there" in outcome.message


def in_a_folder(path: Path) -> None:
    inner = path / "0_Transformer"
    inner.mkdir()
    for file in [file for file in path.iterdir() if file.is_file()]:
        file.rename(inner / file.name)
    (path / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "0_Transformer", "type": "x"}]))


def sharded(path: Path) -> None:
    model = AutoModelForMaskedLM.from_pretrained(path)
    (path / WEIGHTS).unlink()
    model.save_pretrained(path, max_shard_size="20KB")


def stale_index(path: Path) -> None:
    (path / f"{WEIGHTS}.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"gone": "gone.safetensors"}})
    )


def padded(path: Path) -> None:
    model = AutoModelForMaskedLM.from_pretrained(path)
    model.resize_token_embeddings(448)
    model.save_pretrained(path)


OPENED: dict[str, Change] = {
    "as saved": lambda path: None,
    "in a folder of sentence-transformers": in_a_folder,
    "sharded": sharded,
    "a stale index beside the whole file": stale_index,
    "in bf16": lambda path: AutoModelForMaskedLM.from_pretrained(path, dtype=torch.bfloat16).save_pretrained(path),
    "a padded vocabulary": padded,
    "with heads that are not used": lambda path: edit_tensors(
        path, lambda tensors: tensors.update({"cls.seq_relationship.weight": torch.zeros(2, 32)})
    ),
    "with buffers of old versions": lambda path: edit_tensors(
        path, lambda tensors: tensors.update({"bert.embeddings.position_ids": torch.arange(32)[None]})
    ),
}


@pytest.mark.parametrize("kind", OPENED)
def test_what_is_opened_says_what_plain_transformers_says(
    kind: str, teacher: Path, tiny_recipe: Any, run_cli: Callable[..., Any]
) -> None:
    OPENED[kind](teacher)
    outcome = plan(tiny_recipe, teacher, run_cli)
    assert outcome.code == 0, outcome.stderr
    inner = teacher / "0_Transformer" if (teacher / "0_Transformer").is_dir() else teacher
    expected = AutoModelForMaskedLM.from_pretrained(inner, dtype=torch.float32).eval()
    ids_BS = torch.randint(5, 150, (2, 9))
    inputs = {"input_ids": ids_BS, "attention_mask": torch.ones_like(ids_BS)}
    opened = open_headed(inner, MASKED_TOKENS, 150, device="cpu", attention="eager")
    with torch.no_grad():
        found = opened.logits(inputs, torch.arange(18))
        wanted = expected(**inputs).logits.flatten(0, 1)[:, :150]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_the_student_keeps_its_teacher_s_pooler(teacher: Path, tiny_recipe: Any, run_cli: Callable[..., Any]) -> None:
    pooler = torch.randn(32, 32)
    edit_tensors(
        teacher,
        lambda tensors: tensors.update({"bert.pooler.dense.weight": pooler, "bert.pooler.dense.bias": torch.zeros(32)}),
    )
    tiny_recipe.set("teacher", {"source": str(teacher)}).set("fine_tuning.training.learning_rate", 1e-9)
    assert run_cli("run", tiny_recipe.write(), "--output", tiny_recipe.output).code == 0
    opened = open_headed(tiny_recipe.output / "student", CLASSES, 2, device="cpu", attention="eager")
    torch.testing.assert_close(opened.model.bert.pooler.dense.weight.data, pooler, atol=1e-5, rtol=0)


@pytest.mark.needs("ctranslate2")
@pytest.mark.parametrize("rope_type", ["llama3", "linear", "yarn", "dynamic"])
@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
def test_scaled_positions_that_ctranslate2_would_drop_are_refused_by_plan(
    rope_type: str, key: str, finished_decoder_run: Any, run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    """Llama 3.1 and 3.2; the Hub's older configs call it rope_scaling."""
    from transformers import LlamaConfig, LlamaForCausalLM

    steps = json.loads((finished_decoder_run.output / "run.json").read_text())["steps"]
    folder = finished_decoder_run.output.parent / "steps" / steps["pre-train the teacher"] / "model"
    source = Path(shutil.copytree(folder, tmp_path / "llama"))
    config = LlamaConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    LlamaForCausalLM(config).save_pretrained(source)
    scaling = {"rope_type": rope_type, "factor": 4.0, "original_max_position_embeddings": 32}
    if rope_type == "llama3":
        scaling |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    content = json.loads((source / "config.json").read_text())
    theta = content.pop("rope_parameters", {}).get("rope_theta", 10000.0)
    scaled = {**scaling, "rope_theta": theta} if key == "rope_parameters" else scaling
    (source / "config.json").write_text(json.dumps({**content, "rope_theta": theta, key: scaled}))
    recipe = type(finished_decoder_run)(
        finished_decoder_run.folder, json.loads(json.dumps(finished_decoder_run.content))
    )
    recipe.set("teacher", {"source": str(source)}).set("pretraining", None)
    recipe.set("exports", [{"to": "ctranslate2"}])
    outcome = run_cli("plan", recipe.write("scaled.yaml"))
    assert outcome.code == 2
    assert (
        f"ctranslate2 cannot be made (CTranslate2's converter drops position embeddings of the type {rope_type})"
        in (outcome.message)
    )
