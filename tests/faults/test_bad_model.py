"""A model that is broken or of another kind ends in exit code 2 and one line that names it and says what to do.

The fixtures look after the rest: no traceback, an earlier run unchanged, nothing half-written.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lightpaff.models.families import PRETRAINING_HEADS
from lightpaff.models.initialisation import create_student
from lightpaff.models.shapes import scratch_config
from lightpaff.models.tokenizers import train_tokenizer
from lightpaff.recipe_families import Family
from lightpaff.recipe_sections import FromScratch
from tests.faults.changes import (
    Refuse,
    as_decoder,
    as_encoder_decoder,
)


@pytest.fixture
def model(finished_run: Any, tmp_path: Path) -> Path:
    """A copy of the finished run's pre-trained teacher, to be spoilt."""
    steps = json.loads((finished_run.output / "run.json").read_text())["steps"]
    copy = tmp_path / "model"
    shutil.copytree(finished_run.output.parent / "steps" / steps["pre-train the teacher"] / "model", copy)
    return copy


@pytest.fixture
def classifier(finished_run: Any, tmp_path: Path) -> Path:
    """A copy of the finished run's fine-tuned teacher."""
    steps = json.loads((finished_run.output / "run.json").read_text())["steps"]
    copy = tmp_path / "classifier"
    shutil.copytree(
        finished_run.output.parent / "steps" / steps["fine-tune the teacher on toy, seed 0"] / "model", copy
    )
    return copy


@pytest.fixture
def ready_recipe(tiny_recipe: Any, model: Path) -> Any:
    tiny_recipe.set("teacher", {"source": str(model)})
    tiny_recipe.set("pretraining", None)
    return tiny_recipe


def swap_tokens(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    first, second = [token for token in vocabulary if token.isalpha()][:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (folder / "tokenizer.json").write_text(json.dumps(content))


def cut_in_half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_other_vocabulary(ready_recipe: Any, model: Path, classifier: Path, expect_refusal: Refuse) -> None:
    other = model.with_name("other")
    shutil.copytree(model, other)
    swap_tokens(other)
    swap_tokens(classifier)
    ready_recipe.set("student.initialisation", str(other))
    expect_refusal(
        ready_recipe.write(), "student.initialisation: its vocabulary is not that of the teacher: 2 differences"
    )
    ready_recipe.set("student.initialisation", "teacher")
    ready_recipe.set("tasks.0.teacher", str(classifier))
    expect_refusal(
        ready_recipe.write(), "tasks.toy.teacher: its vocabulary is not that of the teacher", "share one tokenizer"
    )


def test_task_teacher_of_another_task(ready_recipe: Any, model: Path, classifier: Path, expect_refusal: Refuse) -> None:
    ready_recipe.set("tasks.0.teacher", str(model))
    expect_refusal(
        ready_recipe.write(), "tasks.toy.teacher: ", "comes without a classification head", "leave the key out"
    )


def test_task_teacher_that_gives_no_numbers(ready_recipe: Any, classifier: Path, expect_refusal: Refuse) -> None:
    weights = load_file(classifier / "model.safetensors")
    weights["classifier.weight"].fill(np.nan)
    save_file(weights, classifier / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((classifier / "config.json").read_text())
    names = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
    (classifier / "config.json").write_text(json.dumps({**config, **names}))
    ready_recipe.set("tasks.0.teacher", str(classifier))
    expect_refusal(ready_recipe.write(), f"tasks.toy.teacher: {classifier} says NaN or infinity")


def test_pickled_weights(ready_recipe: Any, model: Path, expect_refusal: Refuse) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    expect_refusal(ready_recipe.write(), f"{model}: holds pytorch_model.bin, a pickle", "save_pretrained")


def test_weights_cut_in_half(ready_recipe: Any, model: Path, classifier: Path, expect_refusal: Refuse) -> None:
    cut_in_half(classifier / "model.safetensors")
    ready_recipe.set("tasks.0.teacher", str(classifier))
    expect_refusal(
        ready_recipe.write(), f"{classifier}: its safetensors weights cannot be read", "fetch or make them anew"
    )
    ready_recipe.set("tasks.0.teacher", None)
    cut_in_half(model / "model.safetensors")
    expect_refusal(ready_recipe.write(), f"{model}: its safetensors weights cannot be read", "fetch or make them anew")


def test_weights_of_another_shape(ready_recipe: Any, model: Path, expect_refusal: Refuse) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    expect_refusal(ready_recipe.write(), f"{model}: ", "config.json", "anew", output=ready_recipe.output)


def test_weights_that_lack_tensors(ready_recipe: Any, model: Path, expect_refusal: Refuse) -> None:
    weights = load_file(model / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "layer.1.attention" not in name}
    save_file(kept, model / "model.safetensors", metadata={"format": "pt"})
    expect_refusal(ready_recipe.write(), f"{model}: lacks ", "tensors of a bert", output=ready_recipe.output)


def test_weights_of_another_sha256(ready_recipe: Any, model: Path, expect_refusal: Refuse) -> None:
    found = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    ready_recipe.set("teacher.sha256", "0" * 64)
    expect_refusal(ready_recipe.write(), f"{model}: the sha256 of its weights is {found}, the recipe names 0000")


CONFIGS: dict[str, tuple[str, str]] = {
    "not JSON": ("{", "config.json: is not a JSON object"),
    "a list": ("[]", "config.json: is not a JSON object"),
    "another type": (
        '{"model_type": "mamba"}',
        "model_type is 'mamba' in its config.json; take a model of a known one: bert, roberta",
    ),
    "no type": ("{}", "model_type is None in its config.json; take a model of a known one: bert, roberta"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_model_config(case: str, ready_recipe: Any, model: Path, expect_refusal: Refuse) -> None:
    content, problem = CONFIGS[case]
    (model / "config.json").write_text(content)
    expect_refusal(ready_recipe.write(), str(model), problem)


def test_model_without_tokenizer(ready_recipe: Any, model: Path, expect_refusal: Refuse) -> None:
    (model / "tokenizer.json").write_text("{}")
    expect_refusal(ready_recipe.write(), f"{model}: its tokenizer cannot be read", "tokenizer.json")
    (model / "tokenizer.json").unlink()
    expect_refusal(ready_recipe.write(), f"{model}: holds no tokenizer", "tokenizer.json")


MODELS: dict[str, tuple[str, str]] = {
    "nobody/no-such-model": ("cannot be had from the Hub (HF_HUB_OFFLINE is set", "or name a local directory"),
    "/no/such/directory": ("is neither an existing directory nor a Hub id", "check the path, or write OWNER/NAME"),
}


@pytest.mark.parametrize("source", MODELS)
def test_model_that_cannot_be_had(source: str, tiny_recipe: Any, expect_refusal: Refuse) -> None:
    tiny_recipe.set("teacher", {"source": source})
    tiny_recipe.set("pretraining", None)
    expect_refusal(tiny_recipe.write(), f"{source}: ", *MODELS[source])
    tiny_recipe.set("teacher", {"source": [source, "nowhere/else"]})
    expect_refusal(tiny_recipe.write(), "none of 2 model sources can be had: ", source, "nowhere/else")


def save_model(folder: Path, family: Family, texts: list[str], languages: tuple[str, ...] = (), **keys: Any) -> Path:
    """A model with random weights, with a tokenizer that learnt from the texts."""
    sizes = {"layers": 2, "hidden_size": 32, "heads": 2, "feed_forward": 64, "max_length": 32}
    from_scratch = FromScratch.model_validate({**sizes, "vocabulary_size": 360, **keys})
    tokenizer = train_tokenizer(iter(texts), from_scratch, family, languages)
    model = create_student(
        scratch_config(from_scratch, tokenizer),
        PRETRAINING_HEADS[family],
        len(tokenizer),
        initialisation="random",
        teacher_path=None,
        seed=0,
        attention="eager",
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def texts(tiny_recipe: Any) -> list[str]:
    return list((tiny_recipe.folder / "corpus.txt").read_text().splitlines())


def test_ready_made_decoder(
    tiny_recipe: Any, texts: list[str], tmp_path: Path, model: Path, expect_refusal: Refuse
) -> None:
    gpt2 = save_model(tmp_path / "gpt2", "decoder", texts, architecture="gpt2")
    as_decoder(tiny_recipe)
    tiny_recipe.set("teacher", {"source": str(model)})
    problem = f"teacher.source: {model}: is a bert, but the recipe's family is decoder (gpt2, llama"
    expect_refusal(tiny_recipe.write(), problem, "take another model, or set family to encoder")
    tiny_recipe.set("teacher", {"source": str(gpt2)})
    tiny_recipe.set("student.initialisation", str(model))
    expect_refusal(tiny_recipe.write(), f"student.initialisation: {model}: is a bert, but the recipe's family is deco")
    other = save_model(tmp_path / "other", "decoder", [text[::-1] for text in texts], architecture="gpt2")
    tiny_recipe.set("student.initialisation", str(other))
    problem = "student.initialisation: its vocabulary is not that of the teacher: "
    expect_refusal(tiny_recipe.write(), problem, "take models that share one tokenizer")
    tiny_recipe.set("student.initialisation", "random")
    tiny_recipe.set("tasks.0.teacher", str(model))
    expect_refusal(tiny_recipe.write(), f"tasks.toy.teacher: {model}: is a bert, but the recipe's family is decoder")
    classifier = tmp_path / "classifier"
    shutil.copytree(gpt2, classifier)
    weights = load_file(classifier / "model.safetensors")
    save_file(
        {**weights, "score.weight": np.zeros((2, 32))}, classifier / "model.safetensors", metadata={"format": "pt"}
    )
    tiny_recipe.set("tasks.0.teacher", str(classifier))
    problem = f"tasks.toy.teacher: {classifier} comes without a language model head, so it is not fine-tuned"
    expect_refusal(tiny_recipe.write(), problem, "leave the key out")


def test_decoder_for_encoders(
    ready_recipe: Any, texts: list[str], tmp_path: Path, model: Path, expect_refusal: Refuse
) -> None:
    bart = save_model(tmp_path / "bart", "encoder-decoder", texts, architecture="bart")
    ready_recipe.set("teacher", {"source": str(bart)})
    problem = f"teacher.source: {bart}: is a bart, but the recipe's family is encoder (bert, roberta"
    expect_refusal(ready_recipe.write(), problem, "take another model, or set family to encoder-decoder")


def test_languages_that_the_teacher_lacks(
    tiny_recipe: Any, texts: list[str], tmp_path: Path, expect_refusal: Refuse
) -> None:
    bart = save_model(tmp_path / "bart", "encoder-decoder", texts, ("en", "de"), architecture="bart")
    as_encoder_decoder(tiny_recipe)
    tiny_recipe.set("teacher", {"source": str(bart)})
    tiny_recipe.set("tasks.0.languages", {"source": "en", "target": "fr"})
    problem = "language fr: the tokenizer has neither a token <fr> nor a code fr"
    expect_refusal(tiny_recipe.write(), problem, "name a language that it has")
    tiny_recipe.set("tasks.0.languages", {"source": "en", "target": "de"})
    tiny_recipe.set("pretraining.corpus", [{"path": "corpus.txt", "language": "english"}])
    problem = "language english: the tokenizer has neither a token <english> nor a code english"
    expect_refusal(tiny_recipe.write(), problem, "name a language that it has")


def test_mssm_without_a_mask_token(tiny_recipe: Any, texts: list[str], tmp_path: Path, expect_refusal: Refuse) -> None:
    marian = save_model(tmp_path / "marian", "encoder-decoder", texts, architecture="marian")
    settings = json.loads((marian / "tokenizer_config.json").read_text())
    del settings["mask_token"]
    (marian / "tokenizer_config.json").write_text(json.dumps(settings))
    as_encoder_decoder(tiny_recipe)
    tiny_recipe.set("teacher", {"source": str(marian)})
    problem = "pretraining.objective: mssm needs a tokenizer with a mask token, and this one has none"
    expect_refusal(tiny_recipe.write(), problem, "or leave pretraining out")


def test_gguf_files(tiny_recipe: Any, tmp_path: Path, expect_refusal: Refuse) -> None:
    as_decoder(tiny_recipe)
    tiny_recipe.set("teacher", {"source": "nowhere.gguf"})
    expect_refusal(tiny_recipe.write(), "nowhere.gguf: no such file; check the path")
    for content in (b"", b"GGUF", b"this is not a model"):
        (tiny_recipe.folder / "model.gguf").write_bytes(content)
        tiny_recipe.set("teacher", {"source": "./model.gguf"})
        expect_refusal(tiny_recipe.write(), f"{tmp_path / 'model.gguf'}: is not a GGUF file (", "get the file anew")
