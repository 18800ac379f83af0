"""A recipe's file and what overrides it: what is wrong is told in one line, and local paths are beside the file."""

from pathlib import Path
from typing import Any

import pytest

from lightpaff.errors import UserError
from lightpaff.recipe import Recipe


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("student.layers=4", lambda recipe: recipe.student.layers == 4),
        ("name=other", lambda recipe: recipe.name == "other"),
        ("control=false", lambda recipe: recipe.control is False),
        ("seeds.fine_tuning=[1, 2]", lambda recipe: recipe.seeds.fine_tuning == [1, 2]),
        ("tasks.0.columns.label=stars", lambda recipe: recipe.tasks[0].columns.label == "stars"),
        ("tasks.0.test=test.csv", lambda recipe: recipe.tasks[0].test.path.endswith("/test.csv")),
        ("fine_tuning.distillation.weight=0", lambda recipe: recipe.fine_tuning.distillation.weight == 0),
        ("pretraining.corpus.0=other.txt", lambda recipe: recipe.pretraining.corpus[0].path.endswith("/other.txt")),
        ("pretraining=null", lambda recipe: recipe.pretraining is None),
        (
            "pretraining.distillation={targets: {kind: sampled}}",
            lambda recipe: (
                recipe.pretraining.distillation.weight == 0.9
                and recipe.pretraining.distillation.targets.kind == "sampled"
                and recipe.pretraining.distillation.targets.draws == 12
            ),
        ),
        (
            "fine_tuning.distillation={temperature: 2}",
            lambda recipe: recipe.fine_tuning.distillation.weight == 0.5,
        ),
        ("fine_tuning.training={steps: 3, learning_rate: 0.1}", lambda recipe: recipe.fine_tuning.training.steps == 3),
    ],
)
def test_overrides(recipe_file: Path, override: str, read: Any) -> None:
    before = Recipe.load(recipe_file)
    recipe = Recipe.load(recipe_file, [override])
    assert read(recipe)
    assert recipe.fingerprint() != before.fingerprint()


def test_the_last_override_wins(recipe_file: Path) -> None:
    assert Recipe.load(recipe_file, ["student.layers=4", "student.layers=6"]).student.layers == 6


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("student.layers", "--set student.layers: write it as key.path=value, such as --set student.layers=4"),
        ("=4", "--set =4: write it as key.path=value"),
        ("student.layers.x=1", "--set student.layers.x=1: student.layers holds a value, not keys"),
        ("tasks.1.name=x", "--set tasks.1.name=x: '1' is not a place in a list of 1; count from 0"),
        ("tasks.first=x", "--set tasks.first=x: 'first' is not a place in a list of 1; count from 0"),
        ("student.layers=[1", "--set student.layers=[1: the value is not valid YAML; quote it"),
        ("student.layer=4", "unknown key 'student.layer'; known here: layers, decoder_layers, hidden_size, heads"),
        ("tasks.0.colums.text=x", "unknown key 'tasks.0.colums'; known here: name, objective, train, validation"),
        ("tasks.0.train=[{path: a.csv, sha: x}]", "unknown key 'tasks.0.train.0.sha'; known here: path, sha256"),
        ("tasks.0.test={path: a.csv, sha: x}", "unknown key 'tasks.0.test.sha'; known here: path, sha256"),
        ("tasks.0.labels=[[a], b]", "key 'tasks.0.labels.0': Input should be a valid string"),
        ("student.layers=0", "key 'student.layers': Input should be greater than 0; found 0"),
        ("student.layers=many", "key 'student.layers': Input should be a valid integer"),
        ("student.layers=.nan", "key 'student.layers': "),
        ("fine_tuning.training.learning_rate=.inf", "key 'fine_tuning.training.learning_rate': "),
        ("fine_tuning.distillation.weight=1.5", "key 'fine_tuning.distillation.weight': "),
        (
            "fine_tuning.distillation.temperature=1.0e+30",
            "key 'fine_tuning.distillation.temperature': Input should be less than or equal to 1000; found 1e+30",
        ),
        ("fine_tuning.training.steps=3", "exactly one of steps, tokens and epochs; found steps, epochs"),
        ("fine_tuning.training.epochs=null", "exactly one of steps, tokens and epochs; found none"),
        ("teacher.source=5", "key 'teacher.source': Input should be a valid string; found 5"),
        ("teacher.from_scratch={layers: 2, hidden_size: 8, heads: 2, feed_forward: 8}", "exactly one of source and"),
        ("student={}", "key 'student.layers' is missing; add it"),
        ("pretraining.corpus=[]", "key 'pretraining.corpus': List should have at least 1 item"),
        ("name=a name", "key 'name': String should match pattern"),
        ("name=..", "key 'name': String should match pattern"),
        ("name=steps", "the name 'steps' is taken by the folder that runs share; take another"),
        (
            "tasks.0.metrics=[pearson]",
            "metric 'pearson' does not fit the objective classify; take accuracy, f1, matthews",
        ),
        (
            "pretraining.distillation={divergence: reverse_kl, targets: {kind: sampled}}",
            "targets.kind is sampled, but divergence reverse_kl needs every class; set targets.kind to live",
        ),
        (
            "fine_tuning.distillation={targets: {kind: top-k, proposal: 2}}",
            "targets.proposal is for sampled, not for top-k; leave it out",
        ),
        ("pretraining.distillation={targets: {kind: all}}", "key 'pretraining.distillation.targets.kind': "),
        ("pretraining.distillation={targets: {draw: 3}}", "unknown key 'pretraining.distillation.targets.draw'; known"),
        ("tasks.0.labels=[no, yes]", "YAML reads no, yes, on, off, true and false as truth values"),
        ("seeds.fine_tuning=[1, 1]", "seeds.fine_tuning needs different seeds; found [1, 1]"),
        ("teacher.pretraining={steps: 1, learning_rate: 1}", None),
    ],
)
def test_what_is_wrong_is_told_in_one_line(recipe_file: Path, override: str, message: str | None) -> None:
    if message is None:
        assert Recipe.load(recipe_file, [override]).teacher.pretraining is not None
        return
    with pytest.raises(UserError) as caught:
        Recipe.load(recipe_file, [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert override in str(caught.value) or str(recipe_file) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "is not valid YAML"),
        (b"- a\n- b", "holds list, not keys and values"),
        (b"", "holds NoneType, not keys and values"),
        (b"\xff\xfe\x00", "is not UTF-8 text (byte 0)"),
    ],
)
def test_what_is_no_recipe_is_told_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        Recipe.load(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.yaml: no such recipe"):
        Recipe.load(tmp_path / "absent.yaml")
    with pytest.raises(UserError, match="is a directory"):
        Recipe.load(tmp_path)


def test_local_paths_are_beside_the_recipe(recipe_file: Path) -> None:
    (recipe_file.parent / "model").mkdir()
    remote = ["hub:owner/data", "wheel:a==1#b.csv", "s3://bucket/file.csv", "/absolute/file.csv"]
    overrides = [f"pretraining.corpus=[../corpus.txt, {', '.join(repr(path) for path in remote)}]"]
    overrides += ["tasks.0.unlabelled=[more.txt]", "tasks.0.teacher=model", "student.initialisation=./small"]
    recipe = Recipe.load(recipe_file, [*overrides, "teacher.source=[owner/model, model, 'wheel:a==1#m']"])
    folder = recipe_file.parent
    assert recipe.pretraining is not None
    assert [source.path for source in recipe.pretraining.corpus] == [str(folder.parent / "corpus.txt"), *remote]
    task = recipe.tasks[0]
    assert [source.path for source in task.train] == [str(folder / "train.jsonl")]
    assert task.validation.path == str(folder / "validation.jsonl")
    assert task.unlabelled[0].path == str(folder / "more.txt")
    assert task.teacher == str(folder / "model")
    assert recipe.student.initialisation == str(folder / "small")
    assert recipe.teacher.source == ["owner/model", str(folder / "model"), "wheel:a==1#m"]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("stored", "FOLDER/stored"),
        ("../stored", "PARENT/stored"),
        ("~/stored", "/home/somebody/stored"),
        ("/stored", "/stored"),
        ("s3://bucket/stored", "s3://bucket/stored"),
        ("null", None),
    ],
)
def test_stores_are_beside_the_recipe(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, given: str, read: str | None
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    folder = recipe_file.parent
    expected = read and read.replace("FOLDER", str(folder)).replace("PARENT", str(folder.parent))
    keys = [f"{stage}.distillation.targets" for stage in ("pretraining", "fine_tuning")]
    arms = ["arms={other: {" + ", ".join(f"{key}: {{store: {given}}}" for key in keys) + "}}"]
    recipe = Recipe.load(recipe_file, [*(f"{key}.store={given}" for key in keys), *arms])
    for read_recipe in (recipe, recipe.overridden(recipe.arms["other"])):
        assert read_recipe.pretraining is not None
        assert read_recipe.pretraining.distillation.targets.store == expected
        assert read_recipe.fine_tuning.distillation.targets.store == expected


def test_the_home_directory_is_found(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert Recipe.load(recipe_file, ["tasks.0.test=~/t.csv"]).tasks[0].test.path == "/home/somebody/t.csv"  # type: ignore[union-attr]


@pytest.mark.parametrize("word", ["random", "teacher"])
def test_a_way_to_start_is_no_path(recipe_file: Path, word: str) -> None:
    (recipe_file.parent / word).mkdir()
    assert Recipe.load(recipe_file, [f"student.initialisation={word}"]).student.initialisation == word


def test_a_teacher_in_the_working_directory_is_not_taken_for_one_beside_the_recipe(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "bert").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    with pytest.raises(UserError, match=rf"bert: is in the working directory, .* write {elsewhere}/bert, or hub:bert"):
        Recipe.load(recipe_file, ["teacher.source=bert"])
    (recipe_file.parent / "bert").mkdir()
    assert Recipe.load(recipe_file, ["teacher.source=bert"]).teacher.source == [str(recipe_file.parent / "bert")]
