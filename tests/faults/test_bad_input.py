"""Bad input ends in exit code 2 and one line that names the place, what was found and what to do.

The fixtures look after the rest: no traceback, an earlier run unchanged, nothing half-written.
"""

import gzip
import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
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

Refuse = Callable[..., str]


def rows_of(recipe: Any, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (recipe.folder / f"{name}.jsonl").read_text().splitlines()]


def write_rows(recipe: Any, name: str, rows: list[dict[str, Any]]) -> None:
    (recipe.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def change_rows(name: str, **columns: Any) -> Callable[[Any], None]:
    """Give every row of a file these values."""

    def change(recipe: Any) -> None:
        write_rows(recipe, name, [{**row, **columns} for row in rows_of(recipe, name)])

    return change


def change_last_row(name: str, **columns: Any) -> Callable[[Any], None]:
    def change(recipe: Any) -> None:
        rows = rows_of(recipe, name)
        write_rows(recipe, name, [*rows[:-1], {**rows[-1], **columns}])

    return change


def write_file(name: str, content: bytes) -> Callable[[Any], None]:
    return lambda recipe: (recipe.folder / name).write_bytes(content)


def set_key(key: str, value: Any) -> Callable[[Any], None]:
    return lambda recipe: recipe.set(key, value)


def name_rows_with_words(recipe: Any) -> None:
    for name in ("train", "validation"):
        write_rows(recipe, name, [{**row, "label": ["bad", "good"][row["label"]]} for row in rows_of(recipe, name)])
    change_last_row("validation", label="maybe")(recipe)


def repeat_the_task(recipe: Any) -> None:
    recipe.set("tasks", recipe.content["tasks"] * 2)


TEXT = b'{"sentence": "warm", "label": 1}\n'

DATA: dict[str, tuple[Callable[[Any], Any], tuple[str, ...]]] = {
    "missing corpus": (set_key("pretraining.corpus", ["nowhere.txt"]), ("nowhere.txt: no such file", "check the path")),
    "missing rows": (set_key("tasks.0.train", "nowhere.jsonl"), ("nowhere.jsonl: no such file", "check the path")),
    "directory as a file": (set_key("tasks.0.train", "."), (": is a directory", "name a file in it")),
    "unknown ending": (
        lambda recipe: (write_file("rows.dat", TEXT)(recipe), recipe.set("tasks.0.train", "rows.dat")),
        ("rows.dat: the ending '.dat' tells no format", "add the key format"),
    ),
    "empty corpus": (write_file("corpus.txt", b""), ("corpus.txt: holds no rows", "give a file with data")),
    "empty rows": (write_file("train.jsonl", b""), ("train.jsonl: holds no rows", "give a file with data")),
    "binary file": (
        write_file("validation.jsonl", TEXT + b"\0\1\2\n"),
        ("validation.jsonl: is a binary file (NUL byte in line 2)", "give UTF-8 text"),
    ),
    "compressed file with another ending": (
        write_file("train.jsonl", gzip.compress(TEXT)),
        ("train.jsonl: is a binary file (.gz by its first bytes)", "let its name end in .gz"),
    ),
    "compressed file cut short": (
        lambda recipe: (
            write_file("rows.jsonl.gz", gzip.compress(TEXT * 1000)[:-20])(recipe),
            recipe.set("tasks.0.train", "rows.jsonl.gz"),
        ),
        ("rows.jsonl.gz: cannot be read", "get it anew"),
    ),
    "invalid UTF-8": (
        write_file("train.jsonl", TEXT + '{"sentence": "naïve", "label": 0}\n'.encode("latin-1")),
        ("train.jsonl: line 2 is not UTF-8 text", "0xef", "convert the file to UTF-8"),
    ),
    "broken JSON": (
        write_file("train.jsonl", TEXT + TEXT[:20] + b"\n"),
        ("train.jsonl: line 2 is not JSON", "write one JSON object a line"),
    ),
    "missing text column": (
        set_key("tasks.0.columns", {"text": "text"}),
        ("validation.jsonl, row 1: has no column 'text'; it has sentence, label", "name one of them in the recipe"),
    ),
    "missing corpus column": (
        set_key("pretraining.corpus", ["train.jsonl"]),
        ("train.jsonl, row 1: has no column 'text'; it has sentence, label",),
    ),
    "missing label column": (
        set_key("tasks.0.columns", {"label": "class"}),
        ("train.jsonl, row 1: has no column 'class'; it has sentence, label", "set tasks.toy.columns.label"),
    ),
    "text that is a list": (
        change_last_row("train", sentence=["a", "b"]),
        ("train.jsonl, row 96: column 'sentence' holds a list, not text",),
    ),
    "unknown label": (
        name_rows_with_words,
        ("validation.jsonl, row 48: unknown label 'maybe'; the labels are bad, good", "set tasks.toy.labels"),
    ),
    "label out of range": (
        change_last_row("validation", label=2),
        ("validation.jsonl, row 48: label 2 is out of range; the labels are 0, 1",),
    ),
    "hidden test labels": (
        change_rows("validation", label=-1),
        ("validation.jsonl, row 1: label -1 is out of range; the labels are 0, 1", "leave that split out"),
    ),
    "missing label": (
        change_last_row("validation", label=None),
        ("validation.jsonl, row 48: has no label", "tasks.unlabelled"),
    ),
    "one class only": (
        change_rows("train", label=1),
        ("tasks.toy: the training rows have 1 class (1) in column 'label'", "needs two"),
    ),
    "one class only of the named ones": (
        lambda recipe: (change_rows("train", label=1)(recipe), recipe.set("tasks.0.labels", [0, 1])),
        ("train.jsonl: the training rows of toy are all of one class", "needs two"),
    ),
    "one named class": (set_key("tasks.0.labels", [1]), ("tasks.toy.labels: needs at least two different labels",)),
    "score that is no number": (
        lambda recipe: (recipe.set("tasks.0.objective", "regress"), change_last_row("train", label="high")(recipe)),
        ("train.jsonl, row 96: label 'high' is not a finite number", "(tasks.toy)"),
    ),
    "empty texts": (
        change_rows("train", sentence=" "),
        ("train.jsonl: no row of toy (train) has a text in column 'sentence'; 96 are empty", "columns"),
    ),
    "corpus of spaces": (write_file("corpus.txt", b" \n\t\n"), ("corpus.txt: holds no rows",)),
    "corpus too short": (
        write_file("corpus.txt", b"one two three\n"),
        ("corpus.txt: holds ", "too few for one sequence; add text or lower pretraining.sequence_length"),
    ),
    "no row left": (
        set_key("tasks.0.train", {"path": "train.jsonl", "where": {"label": [7]}}),
        ("train.jsonl: no row is left by where", "the data has"),
    ),
    "another file than named": (
        set_key("tasks.0.train", {"path": "train.jsonl", "sha256": "0" * 64}),
        ("train.jsonl: its sha256 is ", "the recipe names 0000", "get the right file, or correct the recipe"),
    ),
    "data set of the Hub without a network": (
        set_key("tasks.0.train", {"path": "hub:nobody/no-such-rows", "hub_split": "train"}),
        ("hub:nobody/no-such-rows: cannot be had from the Hub", "give a local file"),
    ),
    "split of a Hub data set": (
        set_key("tasks.0.train", "hub:nobody/no-such-rows"),
        ("hub:nobody/no-such-rows: does not say which split", "add the key hub_split"),
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_data(case: str, tiny_recipe: Any, expect_refusal: Refuse) -> None:
    spoil, fragments = DATA[case]
    spoil(tiny_recipe)
    expect_refusal(tiny_recipe.write(), *fragments)


def test_wheel_with_another_content(tiny_recipe: Any, runs: Path, expect_refusal: Refuse) -> None:
    wheels = runs / "steps" / "downloads" / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheels / "toy_rows-1.0-py3-none-any.whl", "w") as archive:
        archive.write(tiny_recipe.folder / "train.jsonl", "toy_rows/train.jsonl")
    source = "wheel:toy-rows==1.0#toy_rows/train.jsonl"
    found = hashlib.sha256((tiny_recipe.folder / "train.jsonl").read_bytes()).hexdigest()
    tiny_recipe.set("tasks.0.train", {"path": source, "sha256": "f" * 64})
    expect_refusal(
        tiny_recipe.write(), f"{source}: its sha256 is {found}, the recipe names ffff", "delete it to fetch it again"
    )
    tiny_recipe.set("tasks.0.train", "wheel:toy-rows==1.0#train.jsonl")
    expect_refusal(tiny_recipe.write(), "has no file 'train.jsonl'; the closest are toy_rows/train.jsonl")
    tiny_recipe.set("tasks.0.train", "wheel:toy-rows#train.jsonl")
    expect_refusal(tiny_recipe.write(), "wheel:toy-rows#train.jsonl: is not a wheel source; write it as wheel:")


RECIPES: dict[str, tuple[Callable[[Any], Any], tuple[str, ...]]] = {
    "unknown key": (
        set_key("student.depth", 4),
        ("unknown key 'student.depth'; known here: layers, decoder_layers, hidden_size, heads, feed_forward",),
    ),
    "unknown key of a source": (
        set_key("tasks.0.train", {"path": "train.jsonl", "columns": "x"}),
        ("unknown key 'tasks.0.train.0.columns'; known here: path, sha256, format",),
    ),
    "unknown key that is a number": (set_key("student.7", 4), ("student.7",)),
    "wrong type": (set_key("student.layers", "many"), ("key 'student.layers': ", "integer", "found 'many'")),
    "out of range": (
        set_key("pretraining.distillation", {"weight": 2}),
        ("key 'pretraining.distillation.weight': ", "less than or equal to 1", "found 2"),
    ),
    "not a number": (
        set_key("pretraining.training.learning_rate", float("nan")),
        ("key 'pretraining.training.learning_rate': ", "finite number"),
    ),
    "missing key": (lambda recipe: recipe.content.pop("student"), ("key 'student' is missing", "lightpaff schema")),
    "two budgets": (
        set_key("pretraining.training.epochs", 1),
        ("key 'pretraining.training': give exactly one of steps, tokens and epochs; found steps, epochs",),
    ),
    "two tasks of one name": (repeat_the_task, ("tasks need different names; found toy, toy",)),
    "no corpus": (set_key("pretraining", None), ("teacher.pretraining needs a corpus", "add the section pretraining")),
    "two teachers": (
        set_key("teacher.source", "somewhere"),
        ("key 'teacher': give exactly one of source and from_scratch",),
    ),
    "text as a section": (set_key("student", "small"), ("key 'student': ", "found 'small'")),
    "student wider than its teacher": (
        set_key("student.hidden_size", 64),
        ("student.hidden_size is 64 and the teacher's 32", "set student.initialisation to random"),
    ),
    "student deeper than its teacher": (
        set_key("student.layers", 3),
        ("student.layers is 3 and the teacher has 2", "set student.layers to 2 or less"),
    ),
    "heads that do not divide": (
        set_key("teacher.from_scratch.heads", 3),
        ("teacher.from_scratch.heads is 3, which does not divide the hidden size 32", "set a divisor"),
    ),
    "sequences longer than the teacher reads": (
        set_key("pretraining.sequence_length", 64),
        ("pretraining.sequence_length is 64, but the teacher reads 32 tokens at most; lower it",),
    ),
    "rows longer than the teacher reads": (
        set_key("tasks.0.max_length", 64),
        ("tasks.toy.max_length is 64, but the teacher reads 32 tokens at most; lower it",),
    ),
}


@pytest.mark.parametrize("case", RECIPES)
def test_recipe(case: str, tiny_recipe: Any, expect_refusal: Refuse) -> None:
    spoil, fragments = RECIPES[case]
    spoil(tiny_recipe)
    path = tiny_recipe.write()
    message = expect_refusal(path, *fragments)
    is_about_values = fragments[0].startswith(
        ("student.hidden", "student.layers is", "teacher.from", "pretraining.seq", "tasks.")
    )
    assert is_about_values or message.startswith(f"{path}: ")


FILES: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "no such recipe; give the path of a YAML file"),
    "empty": (b"", "holds NoneType, not keys and values; see the folder recipes/"),
    "a list": (b"- name: tiny\n", "holds list, not keys and values"),
    "corrupt": (b"name: [tiny\nteacher: {", "is not valid YAML: "),
    "tabs": (b"name: tiny\n\tteacher: x\n", "is not valid YAML: "),
    "binary": (b"\0\1\2", "is not valid YAML: "),
    "not UTF-8": ("name: tïny\n".encode("latin-1"), "is not UTF-8 text (byte 7); give a YAML file"),
}


@pytest.mark.parametrize("case", FILES)
def test_recipe_file(case: str, tmp_path: Path, expect_refusal: Refuse) -> None:
    content, problem = FILES[case]
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_bytes(content)
    expect_refusal(path, f"{path}: {problem}")


def test_recipe_that_is_no_file(tmp_path: Path, expect_refusal: Refuse) -> None:
    expect_refusal(tmp_path, f"{tmp_path}: is a directory; give the path of a YAML file")
    (tmp_path / "file").touch()
    expect_refusal(tmp_path / "file" / "recipe.yaml", "recipe.yaml: cannot be read (Not a directory); give the path")


SETTINGS: dict[str, tuple[str, ...]] = {
    "student.layers": ("--set student.layers: write it as key.path=value",),
    "=4": ("--set =4: write it as key.path=value",),
    "student.depth=4": ("unknown key 'student.depth'",),
    "student.layers=many": ("key 'student.layers'", "found 'many'"),
    "student.layers.count=4": ("--set student.layers.count=4: student.layers holds a value, not keys",),
    "tasks.toy.max_length=8": ("--set tasks.toy.max_length=8: 'toy' is not a place in a list of 1; count from 0",),
    "tasks.1.max_length=8": ("--set tasks.1.max_length=8: '1' is not a place in a list of 1; count from 0",),
    "name=[": ("--set name=[: the value is not valid YAML; quote it",),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_set(setting: str, tiny_recipe: Any, expect_refusal: Refuse) -> None:
    expect_refusal(tiny_recipe.write(), *SETTINGS[setting], options=("--set", setting))


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


def as_decoder(recipe: Any) -> Any:
    """The tiny recipe for a decoder, with the same files: every line and every sentence is a document."""
    recipe.content["family"] = "decoder"
    recipe.content["teacher"]["from_scratch"] |= {"architecture": "gpt2", "vocabulary_size": 300}
    recipe.content["pretraining"]["objective"] = "clm"
    recipe.content["tasks"][0] |= {"objective": "clm", "columns": {"text": "sentence"}}
    return recipe


def as_encoder_decoder(recipe: Any) -> Any:
    """The tiny recipe for an encoder-decoder that rewrites the first sentence of a pair as the second."""
    recipe.content["family"] = "encoder-decoder"
    recipe.content["teacher"]["from_scratch"] |= {"architecture": "bart", "vocabulary_size": 360}
    recipe.content["pretraining"]["objective"] = "mssm"
    recipe.content["tasks"][0] |= {
        "objective": "translate",
        "train": "train_pairs.jsonl",
        "validation": "validation_pairs.jsonl",
        "columns": {"source": "first", "target": "second"},
        "max_target_length": 16,
    }
    return recipe


DECODERS: dict[str, tuple[Callable[[Any], Any], tuple[str, ...]]] = {
    "architecture of encoders": (
        set_key("teacher.from_scratch.architecture", "bert"),
        ("recipe.yaml: teacher.from_scratch.architecture is bert, but the family is decoder; take one of gpt2, llama",),
    ),
    "objective of encoders": (
        set_key("pretraining.objective", "mlm"),
        ("recipe.yaml: pretraining.objective is mlm, but the family decoder is pre-trained with clm",),
    ),
    "task of encoders": (
        lambda recipe: recipe.content["tasks"][0].pop("objective"),
        ("recipe.yaml: the objective of the task toy is classify, but the family decoder has clm",),
    ),
    "two stacks of layers": (
        set_key("student.decoder_layers", 1),
        ("recipe.yaml: student.decoder_layers is for the family encoder-decoder; leave it out",),
    ),
    "stride wider than the window": (
        set_key("tasks.0.stride", 17),
        ("key 'tasks.0': stride is 17, more than max_length 16; lower it",),
    ),
    "missing text column": (
        set_key("tasks.0.columns", {"text": "body"}),
        ("validation.jsonl, row 1: has no column 'body'; it has sentence, label", "name one of them in the recipe"),
    ),
    "text column of txt files": (
        set_key("tasks.0.columns", {}),
        ("validation.jsonl, row 1: has no column 'text'; it has sentence, label", "name one of them in the recipe"),
    ),
    "texts that are empty": (
        change_rows("train", sentence=" "),
        ("train.jsonl: no document of toy (train) has any text in column 'sentence'", "set tasks.toy.columns.text"),
    ),
    "rows of a txt file": (
        set_key("pretraining.corpus", [{"path": "corpus.txt", "document": "file", "where": {"text": ["warm"]}}]),
        ("corpus.txt: where chooses rows, and a txt file has none with document 'file'; leave one of the two out",),
    ),
    "corpus that is one text": (
        lambda recipe: (
            recipe.set("pretraining.corpus", [{"path": "corpus.txt", "document": "file"}]),
            change_last_row("validation", sentence=f"short\n{longest_line(recipe)}\n")(recipe),
        ),
        ("corpus.txt: no text is left; 1 text dropped for containing an evaluation example", "document: blank-line"),
    ),
    "lower case": (
        set_key("teacher.from_scratch.lowercase", True),
        ("teacher.from_scratch.lowercase: is true, but a decoder's tokenizer keeps every text whole; leave it out",),
    ),
    "vocabulary without room for bytes": (
        set_key("teacher.from_scratch.vocabulary_size", 200),
        ("teacher.from_scratch.vocabulary_size", "greater than or equal to 300"),
    ),
    "heads that do not divide": (
        lambda recipe: recipe.content["student"].update(heads=3, initialisation="random"),
        ("student.heads is 3, which does not divide the hidden size 32; set a divisor of it",),
    ),
    "sequences longer than the teacher reads": (
        set_key("pretraining.sequence_length", 64),
        ("pretraining.sequence_length is 64, but the teacher reads 32 tokens at most; lower it",),
    ),
    "windows wider than the teacher reads": (
        set_key("tasks.0.max_length", 64),
        ("tasks.toy.max_length is 64, but the teacher reads 32 tokens at most; lower it",),
    ),
}


def longest_line(recipe: Any) -> str:
    lines: list[str] = (recipe.folder / "corpus.txt").read_text().splitlines()
    return max(lines, key=lambda line: len(line.split()))


@pytest.mark.parametrize("case", DECODERS)
def test_decoder(case: str, tiny_recipe: Any, expect_refusal: Refuse) -> None:
    spoil, fragments = DECODERS[case]
    spoil(as_decoder(tiny_recipe))
    expect_refusal(tiny_recipe.write(), *fragments)


def set_columns(**columns: str) -> Callable[[Any], None]:
    return lambda recipe: recipe.content["tasks"][0]["columns"].update(columns)


def set_student(**keys: Any) -> Callable[[Any], None]:
    """A student from random weights."""
    return lambda recipe: recipe.content["student"].update(keys, initialisation="random")


ENCODER_DECODERS: dict[str, tuple[Callable[[Any], Any], tuple[str, ...]]] = {
    "architecture of decoders": (
        set_key("teacher.from_scratch.architecture", "gpt2"),
        ("teacher.from_scratch.architecture is gpt2, but the family is encoder-decoder; take one of bart, mbart",),
    ),
    "metric of decoders": (
        set_key("tasks.0.metrics", ["perplexity"]),
        ("key 'tasks.0': metric 'perplexity' does not fit the objective translate; take bleu, chrf, rouge1",),
    ),
    "missing source column": (
        set_columns(source="en"),
        ("validation_pairs.jsonl, row 1: has no column 'en'; it has first, second, same", "name one of them"),
    ),
    "missing target column": (
        set_columns(target="translation.de"),
        ("validation_pairs.jsonl, row 1: has no column 'translation.de'; it has first, second, same",),
    ),
    "missing references": (
        set_columns(references="refs"),
        ("validation_pairs.jsonl, row 1: has no column 'refs'; it has first, second, same", "name one of them"),
    ),
    "references that are no texts": (
        lambda recipe: (
            change_rows("validation_pairs", refs=["warm", 3])(recipe),
            set_columns(references="refs")(recipe),
        ),
        ("validation_pairs.jsonl, row 1: column 'refs' holds a list with a int; references are a list of texts",),
    ),
    "references by name": (
        lambda recipe: (
            change_rows("validation_pairs", refs={"first": "warm"})(recipe),
            set_columns(references="refs")(recipe),
        ),
        ("validation_pairs.jsonl, row 1: column 'refs' holds a dict, not text",),
    ),
    "empty targets": (
        change_rows("train_pairs", second=" "),
        (
            "train_pairs.jsonl: no row of toy (train) has texts in the columns 'first' and 'second'; 96 are empty",
            "set tasks.toy.columns",
        ),
    ),
    "heads that do not divide": (
        set_student(heads=3),
        ("student.heads is 3, which does not divide the hidden size 32; set a divisor of it",),
    ),
    "heads of a T5 that do not divide": (
        lambda recipe: (recipe.set("teacher.from_scratch.architecture", "t5"), set_student(heads=5)(recipe)),
        ("student.heads is 5, which does not divide the hidden size 32; set a divisor of it",),
    ),
    "heads that follow from nothing": (
        set_student(hidden_size=24),
        ("student.hidden_size is 24, no multiple of the teacher's head size 16; set student.heads to a divisor of 24",),
    ),
    "decoder deeper than its teacher's": (
        set_key("student.decoder_layers", 3),
        ("student.decoder_layers is 3 and the teacher has 2", "set student.decoder_layers to 2 or less"),
    ),
    "targets longer than the teacher reads": (
        set_key("tasks.0.max_target_length", 64),
        ("tasks.toy.max_target_length is 64, but the teacher reads 32 tokens at most; lower it",),
    ),
}


@pytest.mark.parametrize("case", ENCODER_DECODERS)
def test_encoder_decoder(case: str, tiny_recipe: Any, expect_refusal: Refuse) -> None:
    spoil, fragments = ENCODER_DECODERS[case]
    spoil(as_encoder_decoder(tiny_recipe))
    expect_refusal(tiny_recipe.write(), *fragments)


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


COMMANDS: dict[tuple[str, ...], str] = {
    ("run",): "Missing argument 'recipe'",
    ("run", "recipe.yaml", "--quick"): "No such option: --quick",
    ("run", "recipe.yaml", "--set"): "Option '--set' requires an argument",
    ("run", "recipe.yaml", "more.yaml"): "Got unexpected extra argument(s) (more.yaml)",
    ("train",): "No such command 'train'",
}


@pytest.mark.parametrize("arguments", COMMANDS)
def test_command_line(arguments: tuple[str, ...], run_cli: Callable[..., Any]) -> None:
    outcome = run_cli(*arguments)
    assert outcome.code == 2
    assert outcome.message == f"{COMMANDS[arguments]}; see lightpaff --help"
    assert outcome.stderr.count("\n") == 1


def test_no_command(run_cli: Callable[..., Any]) -> None:
    outcome = run_cli()
    assert (outcome.code, outcome.stderr) == (0, "")
    assert "Usage: lightpaff" in outcome.stdout
