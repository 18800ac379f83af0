"""Sections and keys must fit each other, the family and the objective."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lightpaff.errors import UserError
from lightpaff.recipe import Recipe
from lightpaff.recipe_families import FAMILIES
from tests.unit.recipe.conftest import CONTENT


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"pretraining": None, "teacher": {"source": "a/b", "pretraining": {"steps": 1, "learning_rate": 1}}},
            "corpus",
        ),
        ({"teacher": {}}, "give exactly one of source and from_scratch"),
        ({"tasks": CONTENT["tasks"] * 2}, "tasks need different names; found sentiment, sentiment"),
        ({"tasks": []}, "key 'tasks': List should have at least 1 item"),
        ({"family": "LSTM"}, "key 'family': Input should be 'encoder', 'decoder' or 'encoder-decoder'; found 'LSTM'"),
    ],
)
def test_sections_must_fit_each_other(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, **changes}))
    with pytest.raises(UserError) as caught:
        Recipe.load(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


TRANSLATE: dict[str, Any] = {"objective": "translate", "columns": {"source": "en", "target": "de"}}
CLM: dict[str, Any] = {"objective": "clm", "max_length": 64}
MSSM: dict[str, Any] = {**CONTENT["pretraining"], "objective": "mssm"}


def task_with(**keys: Any) -> dict[str, Any]:
    return {"tasks": [{**CONTENT["tasks"][0], **keys}]}


FAMILY_MISMATCHES: list[tuple[dict[str, Any], str]] = [
    (
        {"family": "decoder"},
        "pretraining.objective is mlm, but the family decoder is pre-trained with clm; set it to that, or take",
    ),
    (
        {"pretraining": MSSM},
        "pretraining.objective is mssm, but the family encoder is pre-trained with mlm; set it to that, or take",
    ),
    (
        {"family": "decoder", "pretraining": None},
        "the objective of the task sentiment is classify, but the family decoder has clm; take one of these",
    ),
    (
        {"family": "encoder-decoder", "pretraining": None, **task_with(**CLM)},
        "the objective of the task sentiment is clm, but the family encoder-decoder has translate; take one of these",
    ),
    (
        task_with(**TRANSLATE),
        "the objective of the task sentiment is translate, but the family encoder has classify, regress, tag, answer;",
    ),
    (
        {"family": "decoder", "pretraining": None, "student": {"layers": 2, "decoder_layers": 2}, **task_with(**CLM)},
        "student.decoder_layers is for the family encoder-decoder; leave it out",
    ),
    (task_with(stride=8), "key 'tasks.0': stride is for clm, not for classify; leave it out"),
    (task_with(**CLM, stride=65), "key 'tasks.0': stride is 65, more than max_length 64; lower it"),
    (task_with(**CLM, metrics=["bleu"]), "metric 'bleu' does not fit the objective clm; take word_perplexity, perplex"),
    (task_with(**TRANSLATE, metrics=["accuracy"]), "'accuracy' does not fit the objective translate; take bleu, chrf"),
    (task_with(**CLM, labels=[0, 1]), "labels is for classify and tag, not for clm; leave it out"),
    (
        task_with(objective="answer", unlabelled=["a.txt"]),
        "unlabelled is for classify and regress and tag and clm and translate, not for answer",
    ),
    (
        task_with(**TRANSLATE, unlabelled=["a.jsonl"]),
        "unlabelled of translate gets its targets from the teacher; add sequence_distillation: {}",
    ),
    (task_with(objective="tag", columns={"group": "film"}), "columns.group is for classify and regress, not for tag"),
    (task_with(**CLM, columns={"text_pair": "b"}), "columns.text_pair is for classify and regress and answer, not for"),
    (task_with(max_target_length=64), "max_target_length is for translate, not for classify; leave it out"),
    (task_with(**CLM, languages={"source": "en", "target": "de"}), "languages is for translate, not for clm"),
    (task_with(**TRANSLATE, languages={"source": "en"}), "key 'tasks.0.languages.target' is missing; add it"),
    (task_with(generation={"beams": 1}), "generation is for translate, not for classify; leave it out"),
    (task_with(sequence_distillation={}), "sequence_distillation is for translate, not for classify; leave it out"),
    (
        task_with(validation={"path": "rows.txt", "document": "file"}),
        "key 'tasks.0': document of rows.txt is file: whole documents are for clm, not for classify; leave it out",
    ),
    (
        {"pretraining": {**CONTENT["pretraining"], "corpus": [{"path": "a.txt", "document": "blank-line"}]}},
        "key 'pretraining': document of a.txt is blank-line: whole documents are for clm, not for mlm; leave it out",
    ),
    (
        {"pretraining": {**CONTENT["pretraining"], "corpus": ["a.txt", {"path": "b.txt", "language": "en"}]}},
        "key 'pretraining': language of b.txt is 'en': languages are for mssm, not for mlm; leave it out, or take",
    ),
    (
        {"pretraining": {**MSSM, "corpus": [{"path": "b.txt", "language": "<en>"}]}},
        "key 'pretraining.corpus.0.language': String should match pattern",
    ),
    (
        {"pretraining": {**MSSM, "mask_rate": 0.3}},
        "key 'pretraining': mask_rate is for mlm, not for mssm; leave it out",
    ),
    (
        {"pretraining": {**CONTENT["pretraining"], "fragment_ratio": 0.3}},
        "key 'pretraining': fragment_ratio is for mssm, not for mlm; leave it out",
    ),
]


@pytest.mark.parametrize(("changes", "message"), FAMILY_MISMATCHES)
def test_keys_must_fit_family_and_objective(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, **changes}))
    with pytest.raises(UserError) as caught:
        Recipe.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


SIZES: dict[str, Any] = {"layers": 2, "hidden_size": 8, "heads": 2, "feed_forward": 8}


@pytest.mark.parametrize(
    ("family", "architecture", "message"),
    [
        ("decoder", "bert", "is bert, but the family is decoder; take one of gpt2, llama, qwen2, qwen3, mistral, gem"),
        (
            "encoder",
            "t5",
            "is t5, but the family is encoder; take one of bert, roberta, xlm-roberta, camembert, mpnet",
        ),
        ("encoder-decoder", "gpt2", "is gpt2, but the family is encoder-decoder; take one of bart, mbart, marian, m2m"),
        ("decoder", "gpt5", "key 'teacher.from_scratch.architecture': Input should be 'bert', 'roberta', "),
    ],
)
def test_an_architecture_is_of_one_family(tmp_path: Path, family: str, architecture: str, message: str) -> None:
    teacher = {"from_scratch": {"architecture": architecture, **SIZES}, "pretraining": {"steps": 1, "learning_rate": 1}}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, "family": family, "teacher": teacher}))
    with pytest.raises(UserError) as caught:
        Recipe.load(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["decoder", "encoder-decoder"])
def test_recipes_of_other_families(tmp_path: Path, family: str) -> None:
    """Also that what is written out with its defaults is read again."""
    corpus = {"decoder": {"path": "a.txt", "document": "file"}, "encoder-decoder": {"path": "a.txt", "language": "en"}}
    content = {
        **CONTENT,
        "family": family,
        "pretraining": {
            **CONTENT["pretraining"],
            "objective": FAMILIES[family].pretraining,  # type: ignore[index]
            "corpus": [corpus[family]],
        },
        **(task_with(**CLM, stride=64) if family == "decoder" else task_with(**TRANSLATE)),
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    recipe = Recipe.load(path)
    task = recipe.tasks[0]
    assert task.columns.text == ("text" if family == "decoder" else "sentence")
    assert task.metric_names == (["word_perplexity", "perplexity"] if family == "decoder" else ["bleu", "chrf"])
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert Recipe.load(path) == recipe
    assert Recipe.load(path, ["tasks.0.columns.text=body"]).tasks[0].columns.text == "body"


@pytest.mark.parametrize(
    ("fractions", "take", "message"),
    [
        ({"train": 0.8, "test": 0.1}, "train", "fractions sum to 0.9; make them sum to 1"),
        ({"train": 0.8, "test": 0.2}, "dev", "take is 'dev'; name one of train, test"),
    ],
)
def test_a_split_must_be_whole(tmp_path: Path, fractions: dict[str, float], take: str, message: str) -> None:
    source = {"path": "rows.csv", "split": {"by": "film", "fractions": fractions, "take": take}}
    path = tmp_path / "recipe.yaml"
    path.write_text(
        yaml.safe_dump({**CONTENT, "tasks": [{**CONTENT["tasks"][0], "validation": source}]}, sort_keys=False)
    )
    with pytest.raises(UserError, match=r"key 'tasks\.0\.validation\.split'") as caught:
        Recipe.load(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("stage", ["pretraining", "fine_tuning"])
@pytest.mark.parametrize("initialisation", ["random", "teacher"])
def test_random_embeddings_are_not_frozen(tmp_path: Path, stage: str, initialisation: str) -> None:
    """In the first stage that there is."""
    content = yaml.safe_load(yaml.safe_dump({**CONTENT, "student": {"layers": 1, "initialisation": initialisation}}))
    content[stage]["training"]["freeze_embeddings"] = True
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    if initialisation == "random" and stage == "pretraining":
        with pytest.raises(
            UserError, match=r"pretraining\.training\.freeze_embeddings: the embeddings would stay random"
        ):
            Recipe.load(path)
    else:
        Recipe.load(path)
