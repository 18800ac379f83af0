"""Model directories as people have them: opened as plain transformers opens them, or refused in one line by `plan`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from lightpaff import Recipe
from lightpaff.models.architecture import CLASSES, MASKED_TOKENS, NEXT_TOKENS, TARGET_TOKENS
from lightpaff.models.families import architecture_of
from lightpaff.models.initialisation import create_student
from lightpaff.models.opening import lacks_head, open_headed, read_config
from lightpaff.models.shapes import student_config
from lightpaff.pipeline.run import open_context, prepare
from lightpaff.recipe_sections import Student

WEIGHTS = "model.safetensors"
Change = Callable[..., Any]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"


def edit_config(path: Path, **settings: Any) -> None:
    content = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**content, **settings}))


def edit_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(path / WEIGHTS)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path / WEIGHTS, {"format": "pt"})


@pytest.fixture
def teacher(finished_run: Any, tmp_path: Path) -> Path:
    """A copy of the finished run's pre-trained BERT of two layers."""
    steps = json.loads((finished_run.output / "run.json").read_text())["steps"]
    source = finished_run.output.parent / "steps" / steps["pre-train the teacher"] / "model"
    return Path(shutil.copytree(source, tmp_path / "teacher"))


@pytest.fixture
def decoder(finished_decoder_run: Any, tmp_path: Path) -> Path:
    """A copy of the finished run's pre-trained GPT-2 of two layers."""
    steps = json.loads((finished_decoder_run.output / "run.json").read_text())["steps"]
    source = finished_decoder_run.output.parent / "steps" / steps["pre-train the teacher"] / "model"
    return Path(shutil.copytree(source, tmp_path / "decoder"))


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


def test_an_output_layer_of_its_own_though_the_config_says_tied(decoder: Path, tmp_path: Path) -> None:
    """Usual after a trained head was merged: opened with that head, and so is what is saved."""
    edit_tensors(decoder, lambda tensors: tensors.update({"lm_head.weight": torch.randn(300, 32)}))
    assert json.loads((decoder / "config.json").read_text())["tie_word_embeddings"] is not False
    opened = open_headed(decoder, "next_tokens", 300, device="cpu", attention="eager")
    own = load_file(decoder / WEIGHTS)["lm_head.weight"]
    torch.testing.assert_close(opened.weight_VD, own)
    opened.model.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    ids_BS = torch.randint(0, 200, (1, 7))
    with torch.no_grad():
        torch.testing.assert_close(again(ids_BS).logits, opened.model(ids_BS).logits)


def test_a_student_of_such_a_teacher_reloads_equal(
    decoder: Path, finished_decoder_run: Any, run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    edit_tensors(decoder, lambda tensors: tensors.update({"lm_head.weight": torch.randn(300, 32) / 6}))
    content = json.loads(json.dumps(finished_decoder_run.content))
    recipe = type(finished_decoder_run)(finished_decoder_run.folder, content)
    recipe.set("teacher", {"source": str(decoder)}).set("pretraining", None).set("control", False)
    output = tmp_path / "runs" / "own-head"
    assert run_cli("run", recipe.write("own-head.yaml"), "--output", output).code == 0
    student = AutoModelForCausalLM.from_pretrained(output / "student")
    assert student.lm_head.weight is not student.get_input_embeddings().weight
    stored = load_file(output / "student" / WEIGHTS)
    torch.testing.assert_close(student.lm_head.weight.data, stored["lm_head.weight"])


ENCODER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
DECODER = {**ENCODER, "num_key_value_heads": 1, "head_dim": 8}
BART = {
    "d_model": 16,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 24),
}
T5 = {"d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 24, "num_layers": 2, "decoder_start_token_id": 0}
OWN_LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("cls.predictions.decoder.weight", ENCODER),
    "roberta": ("lm_head.decoder.weight", ENCODER),
    "mpnet": ("lm_head.decoder.weight", ENCODER),
    "deberta-v2": ("cls.predictions.decoder.weight", ENCODER),
    "distilbert": ("vocab_projector.weight", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}),
    "electra": ("generator_lm_head.weight", {**ENCODER, "embedding_size": 8}),
    "modernbert": ("decoder.weight", ENCODER),
    "llama": ("lm_head.weight", DECODER),
    "qwen2": ("lm_head.weight", DECODER),
    "qwen3": ("lm_head.weight", DECODER),
    "mistral": ("lm_head.weight", DECODER),
    "gemma3_text": ("lm_head.weight", DECODER),
    "gpt_neox": ("embed_out.weight", ENCODER),
    "bart": ("lm_head.weight", BART),
    "marian": ("lm_head.weight", BART),
    "m2m_100": ("lm_head.weight", BART),
    "t5": ("lm_head.weight", T5),
    "mt5": ("lm_head.weight", T5),
}
"""What the output layer's weight is called in the file, and small sizes."""


def own_layer(architecture: str, path: Path) -> tuple[str, torch.Tensor]:
    """Write a model whose config says tied, with an output layer of its own: the name of its head, and that layer."""
    key, sizes = OWN_LAYERS[architecture]
    ids = {"pad_token_id": 0, **dict.fromkeys(("bos_token_id", "cls_token_id"), 1), "sep_token_id": 2}
    config = AutoConfig.for_model(architecture, vocab_size=40, tie_word_embeddings=True, **ids, eos_token_id=2, **sizes)
    heads = architecture_of(config).heads
    [head] = [name for name in (MASKED_TOKENS, NEXT_TOKENS, TARGET_TOKENS) if name in heads]
    model = heads[head].auto_class.from_config(config)
    model.save_pretrained(path)
    own = torch.randn_like(model.get_output_embeddings().weight.data)
    edit_tensors(path, lambda tensors: tensors.update({key: own}))
    return head, own


@pytest.mark.parametrize("architecture", OWN_LAYERS)
def test_models_and_students_with_an_output_layer_of_their_own_reload_equal(architecture: str, tmp_path: Path) -> None:
    head, own = own_layer(architecture, tmp_path / "teacher")
    config = read_config(tmp_path / "teacher")
    decoder = {"decoder_layers": 1} if architecture_of(config).sizes.decoder_layers else {}
    student = create_student(
        student_config(config, Student(layers=1, **decoder)),
        head,
        40,
        initialisation="teacher",
        teacher_path=tmp_path / "teacher",
        seed=0,
        attention="sdpa",
    )
    teacher = open_headed(tmp_path / "teacher", head, 40, device="cpu", attention="sdpa").model
    ids_BS = torch.randint(3, 40, (2, 7))
    inputs = {"input_ids": ids_BS, **({"decoder_input_ids": ids_BS} if decoder else {})}
    for model in (teacher, student):
        torch.testing.assert_close(model.get_output_embeddings().weight.data, own, rtol=0, atol=0)
        model.save_pretrained(tmp_path / "saved")
        again = type(model).from_pretrained(tmp_path / "saved").eval()
        with torch.no_grad():
            torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("architecture", ["t5", "mt5"])
def test_a_t5_with_a_projection_of_its_own_lacks_its_head_without_it(architecture: str, tmp_path: Path) -> None:
    """Flan-T5 or mT5 saved by AutoModel: transformers ties them then, without a word."""
    own_layer(architecture, tmp_path)
    edit_config(tmp_path, tie_word_embeddings=False)
    assert not lacks_head(tmp_path, "target_tokens")
    edit_tensors(tmp_path, lambda tensors: tensors.pop("lm_head.weight"))
    assert lacks_head(tmp_path, "target_tokens")
    edit_config(tmp_path, tie_word_embeddings=True)
    assert not lacks_head(tmp_path, "target_tokens")


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForSequenceClassification])
def test_a_decoder_without_an_output_layer_is_no_teacher(
    auto_class: Any, decoder: Path, finished_decoder_run: Any, run_cli: Callable[..., Any]
) -> None:
    model = auto_class.from_pretrained(decoder)
    model.config.tie_word_embeddings = False
    model.save_pretrained(decoder)
    content = json.loads(json.dumps(finished_decoder_run.content))
    recipe = type(finished_decoder_run)(finished_decoder_run.folder, content)
    recipe.set("teacher", {"source": str(decoder)}).set("pretraining", None)
    outcome = run_cli("plan", recipe.write("headless.yaml"))
    assert outcome.code == 2
    assert "comes without a language modelling head (saved without it, or a classifier)" in outcome.message


@pytest.fixture
def classifier(finished_run: Any, tmp_path: Path) -> Path:
    """A copy of the finished run's fine-tuned teacher, trained until it is right on nearly every row."""
    roles = json.loads((finished_run.output / "run.json").read_text())["roles"]
    folder = next(role["folder"] for role in roles if role.get("arm") == "teacher")
    path = Path(shutil.copytree(finished_run.output.parent / "steps" / folder, tmp_path / "classifier"))
    model = AutoModelForSequenceClassification.from_pretrained(path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    rows = [json.loads(line) for line in (finished_run.folder / "train.jsonl").read_text().splitlines()]
    inputs = tokenizer([row["sentence"] for row in rows], padding=True, return_tensors="pt")
    labels = torch.tensor([row["label"] for row in rows])
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(**inputs).logits, labels)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert loss.item() < 0.3
    model.save_pretrained(path)
    return path


def with_task_teacher(recipe: Any, classifier: Path) -> Any:
    return (
        recipe.set("teacher", {"source": str(classifier)})
        .set("pretraining", None)
        .set("tasks.0.teacher", str(classifier))
    )


def swap_classes(tensors: dict[str, torch.Tensor]) -> None:
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name].flip(0)


TEACHERS: dict[str, tuple[Change, str]] = {
    "another order by name": (
        lambda path: edit_config(path, id2label={"0": "1", "1": "0"}, label2id={"1": 0, "0": 1}),
        "its classes are in the order 1, 0; give the task's labels in that order",
    ),
    "another order without names": (
        lambda path: (
            edit_config(path, id2label={"0": "LABEL_0", "1": "LABEL_1"}, label2id={"LABEL_0": 0, "LABEL_1": 1}),
            edit_tensors(path, swap_classes),
        ),
        "set tasks.toy.labels to [1, 0]",
    ),
    "several labels a row": (
        lambda path: edit_config(path, problem_type="multi_label_classification"),
        "was trained to give a row several labels (problem_type multi_label_classification in its config.json)",
    ),
    "a regression": (
        lambda path: edit_config(path, problem_type="regression"),
        "was trained for a score, and the objective is classify",
    ),
    "fewer embeddings than tokens": (
        lambda path: (
            edit_config(path, vocab_size=40),
            edit_tensors(
                path,
                lambda tensors: tensors.update(
                    {"bert.embeddings.word_embeddings.weight": tensors["bert.embeddings.word_embeddings.weight"][:40]}
                ),
            ),
        ),
        "its vocab_size is 40, fewer than the tokenizer's",
    ),
}


@pytest.mark.parametrize("kind", TEACHERS)
def test_a_ready_made_teacher_that_would_teach_nonsense_is_refused_by_plan(
    kind: str, classifier: Path, tiny_recipe: Any, run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    change, line = TEACHERS[kind]
    plain = Path(shutil.copytree(classifier, tmp_path / "plain"))
    change(classifier)
    with_task_teacher(tiny_recipe, classifier).set("teacher", {"source": str(plain)})
    outcome = run_cli("plan", tiny_recipe.write())
    assert outcome.code == 2
    assert line in outcome.message


@pytest.mark.parametrize("names", [("0", "1"), ("LABEL_0", "LABEL_1"), ("bad", "good")])
def test_a_ready_made_teacher_in_the_right_order_is_taken(
    names: tuple[str, str], classifier: Path, tiny_recipe: Any, run_cli: Callable[..., Any]
) -> None:
    edit_config(
        classifier,
        id2label={str(number): name for number, name in enumerate(names)},
        label2id={name: number for number, name in enumerate(names)},
    )
    assert run_cli("plan", with_task_teacher(tiny_recipe, classifier).write()).code == 0


def test_pairs_have_segments_only_where_the_tokenizer_gives_them(classifier: Path, tiny_recipe: Any) -> None:
    columns = {"text": "first", "text_pair": "second", "label": "same"}
    names = {"train": "train_pairs.jsonl", "validation": "validation_pairs.jsonl"}
    tiny_recipe.set("tasks.0", {"name": "pairs", **names, "columns": columns, "max_length": 24})
    tiny_recipe.set("teacher", {"source": str(classifier)}).set("pretraining", None)

    def segments() -> list[int]:
        context = open_context(Recipe.load(tiny_recipe.write()), tiny_recipe.output)
        graph, _ = prepare(context, [])
        from lightpaff.pipeline.context import task_objective

        data = task_objective(context, graph.tasks[0].task, graph.tasks[0].rows, "train")
        import numpy as np

        found = data.batch(np.arange(3), draw=0).inputs.get("token_type_ids")
        return [] if found is None else sorted(set(found.flatten().tolist()))

    assert segments() == [0, 1]
    settings = json.loads((classifier / "tokenizer_config.json").read_text())
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    (classifier / "tokenizer_config.json").write_text(json.dumps(settings))
    assert segments() == []


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
