"""What a model in a directory is to the task."""

from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save_file

from lightpaff.errors import UserError
from lightpaff.models.tokenizers import train_tokenizer
from lightpaff.recipe_sections import FromScratch
from lightpaff.start.guessing import Guess, Objective
from lightpaff.start.new import new_recipe
from lightpaff.start.parts import Files
from lightpaff.start.teacher import classes_of, fetch_teacher, look_at_teacher
from tests.unit.start.made_files import WORDS, model, sentence, write_file

LABELLED = {"text": "text", "label": "label"}


@pytest.mark.parametrize(
    ("objective", "head", "labels"),
    [
        ("classify", "SequenceClassification", 2),
        ("regress", "SequenceClassification", 1),
        ("tag", "TokenClassification", 2),
        ("answer", "QuestionAnswering", 2),
    ],
)
def test_a_model_that_does_the_task_is_used_as_it_is(
    objective: Objective, head: str, labels: int, tmp_path: Path
) -> None:
    guess = Guess(objective, LABELLED, labels=["bad", "good"] if objective == "classify" else [])
    assert look_at_teacher(model(tmp_path, head, labels), guess).is_tuned
    assert not look_at_teacher(model(tmp_path, "MaskedLM"), guess).is_tuned


def test_a_model_of_many_classes_fits_as_many(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {"text": sentence(9), "label": row % 250}, rows=1000)
    teacher = model(tmp_path, "SequenceClassification", 250)
    _, made = new_recipe(Files(path), teacher, tmp_path / "recipe.yaml")
    assert "teacher: it is fine-tuned already, and used as it is" in made.decisions


def test_a_regressor_makes_whole_numbers_scores(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {"text": sentence(9), "label": row % 5})
    recipe, _ = new_recipe(Files(path), model(tmp_path, "SequenceClassification", 1), tmp_path / "recipe.yaml")
    assert (recipe.tasks[0].objective, recipe.tasks[0].teacher) == ("regress", str(tmp_path / "model"))


@pytest.mark.parametrize(
    ("objective", "labels", "told"),
    [
        ("classify", 1, r"is fine-tuned for a score, but the data has 2 \(bad, good\)"),
        ("classify", 3, r"is fine-tuned for 3 classes \(LABEL_0, LABEL_1, LABEL_2\), but the data has 2"),
        ("regress", 3, r"is fine-tuned for 3 classes .* but the data has scores in 'label'"),
    ],
)
def test_a_model_of_other_labels_is_refused(objective: Objective, labels: int, told: str, tmp_path: Path) -> None:
    guess = Guess(objective, LABELLED, labels=["bad", "good"] if objective == "classify" else [])
    with pytest.raises(UserError, match=told):
        look_at_teacher(model(tmp_path, "SequenceClassification", labels), guess)


def test_a_model_of_several_labels_a_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gives a text several labels"):
        classes_of(model(tmp_path, "SequenceClassification", 3, problem_type="multi_label_classification"))


def test_the_directory_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(model(tmp_path, "MaskedLM"))
    assert look_at_teacher(str(tmp_path / "link"), Guess("tag", {})).sources == [str(tmp_path / "link")]


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("/models/bert-typo", "is neither an existing directory nor a Hub id"),
        ("../bert-typo", "is neither an existing directory nor a Hub id"),
        (__file__, "is a file; name the directory with config.json"),
        ("nothing-here.gguf", "no such file; check the path"),
        ("wheel:models", "is not a wheel source"),
    ],
)
def test_what_can_be_no_teacher_is_refused(named: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        look_at_teacher(named, Guess("tag", {}))


@pytest.mark.parametrize("named", ["bert-typo", "team/bert", "hub:team/bert@main"])
def test_a_hub_id_is_said_to_be_one(named: str) -> None:
    found = look_at_teacher(named, Guess("tag", {}))
    assert found.sources == [named]
    assert "no such directory here, and the Hub does not give it now: looked at when the recipe runs" in found.why[0]


@pytest.mark.parametrize(("head", "is_tuned"), [("SequenceClassification", True), ("MaskedLM", False)])
def test_a_model_on_the_hub_is_looked_at(
    head: str, is_tuned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here out of the local cache, since nothing else can be reached."""
    keep_as_the_hub_does(Path(model(tmp_path, head, ["neg", "pos"])), tmp_path / "cache")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    path = write_file(tmp_path, lambda row: {"text": sentence(9), "label": ("neg", "pos")[row % 2]})
    recipe, made = new_recipe(Files(path), "hub:team/small@main", tmp_path / "recipe.yaml")
    assert recipe.teacher.source == ["hub:team/small@main"]
    assert recipe.tasks[0].teacher == ("hub:team/small@main" if is_tuned else None)
    assert (recipe.teacher.pretraining is not None) is is_tuned
    assert f"teacher: hub:team/small@main, BertFor{head}, 12 x 768" in made.decisions


def test_a_pickle_on_the_hub_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = keep_as_the_hub_does(Path(model(tmp_path, "MaskedLM")), tmp_path / "cache")
    (kept / "model.safetensors").rename(kept / "pytorch_model.bin")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"team/small: holds pytorch_model\.bin, a pickle"):
        fetch_teacher("team/small")


def keep_as_the_hub_does(directory: Path, cache: Path) -> Path:
    """Move a model's directory to where the Hub's cache has the snapshot of team/small."""
    (directory / "model.safetensors").write_bytes(b"")
    commit = "1" * 40
    kept = cache / "models--team--small"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text(commit)
    (kept / "snapshots").mkdir()
    return directory.rename(kept / "snapshots" / commit)


def test_a_gguf_file_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small.gguf").touch()
    monkeypatch.chdir(tmp_path)
    assert look_at_teacher("small.gguf", Guess("clm", {})).sources == [str(tmp_path / "small.gguf")]


@pytest.mark.parametrize(("tensors", "is_tuned"), [(["bert.pooler.a", "classifier.a"], True), (["cls.a"], False)])
def test_weights_tell_what_a_config_does_not_say(tensors: list[str], is_tuned: bool, tmp_path: Path) -> None:
    teacher = model(tmp_path, "", architectures=None)
    save_file({name: np.zeros(1) for name in tensors}, Path(teacher) / "model.safetensors")
    assert (classes_of(teacher) == 2) == is_tuned
    assert look_at_teacher(teacher, Guess("classify", LABELLED, labels=["bad", "good"])).is_tuned == is_tuned


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    teacher = model(tmp_path, "MaskedLM")
    (Path(teacher) / "vocab.txt").unlink()
    with pytest.raises(UserError, match="model: holds no tokenizer"):
        look_at_teacher(teacher, Guess("tag", {}))


@pytest.mark.parametrize("known", [[], ["en", "ro"]])
def test_languages_are_named_to_a_model_that_knows_them(known: list[str], tmp_path: Path) -> None:
    teacher = model(tmp_path, "", model_type="bart", architectures=["BartForConditionalGeneration"])
    scratch = FromScratch(layers=2, hidden_size=32, heads=2, feed_forward=64, vocabulary_size=300)
    train_tokenizer(iter(WORDS), scratch, "encoder-decoder", known).save_pretrained(teacher)
    path = write_file(tmp_path, lambda row: {"en": sentence(9), "ro": sentence(9)})
    recipe, made = new_recipe(Files(path), teacher, tmp_path / "recipe.yaml")
    assert (recipe.tasks[0].languages is not None) == bool(known)
    assert recipe.pretraining is not None
    assert [source.language for source in recipe.pretraining.corpus] == (known or [None, None])
    told = "languages: not named to the teacher, whose tokenizer has no token <en>"
    assert (told in made.decisions) == (not known)
