"""What a study file may say, and how it is told what is wrong in it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lightpaff.errors import UserError
from lightpaff.study.definition import arm_recipe, load_study, require_same_evaluation
from lightpaff.study.preset import quick_study

ARMS = {"a": {"student.layers": 1}, "b": {"student.layers": 2}}


def write(recipe: Any, **changes: Any) -> Path:
    path: Path = recipe.folder / "study.yaml"
    content = {"name": "toy", "recipe": str(recipe.write()), "arms": ARMS, "baseline": "a", **changes}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"arms": {"a/b": {}, "a": {}}}, "'a/b' cannot be a name of an arm; take one line without '/'"),
        ({"arms": {"a\nb": {}, "a": {}}}, "cannot be a name of an arm"),
        ({"arms": {"teacher": {}, "a": {}}}, "none of teacher, tfidf"),
        ({"arms": {1: {}, "a": {}}}, "YAML reads the name 1 as no text; put it in quotes"),
        ({"set": {"seeds": {"pretraining": 1}}}, "set: the study itself decides 'seeds'"),
        ({"noise": {"deviations": []}}, "noise.deviations"),
        ({"noise": {"deviations": [0.1, 0.1]}}, "deviations needs different ones"),
        (
            {"arms": {"a": {"x.weight": 0, "x": {"temperature": 3}}, "b": {}}},
            "arms.a: 'x' would undo 'x.weight' before it",
        ),
        (
            {"x": "deterministic", "arms": {"a": {"deterministic": True}, "b": {"deterministic": False}}},
            "x is deterministic, which is True in the arm 'a'; give it a number",
        ),
    ],
)
def test_what_is_wrong_is_told_in_a_line(changes: dict[str, Any], told: str, tiny_recipe: Any) -> None:
    with pytest.raises(UserError) as refused:
        load_study(write(tiny_recipe, **changes))
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("student.layers=[1", "the value is not valid YAML"),
        ("seeds.fine_tuning=[5]", "set: the study itself decides 'seeds.fine_tuning'"),
        ("control=true", "set: the study itself decides 'control'"),
    ],
)
def test_set_is_checked_as_the_file_is(override: str, told: str, tiny_recipe: Any) -> None:
    with pytest.raises(UserError, match="set") as refused:
        load_study(write(tiny_recipe), [override])
    assert told in str(refused.value)
    with pytest.raises(UserError) as refused:
        quick_study(tiny_recipe.write(), [override], tiny_recipe.folder / "out")
    assert told in str(refused.value)


def test_a_study_is_no_recipe_and_the_other_way_round(tiny_recipe: Any) -> None:
    with pytest.raises(UserError, match="is a recipe, not a study"):
        load_study(tiny_recipe.write())
    with pytest.raises(UserError, match="is a study, not a recipe"):
        quick_study(write(tiny_recipe), [], None)


def test_a_source_in_its_short_form_has_keys_for_set_and_arms_alike(tiny_recipe: Any) -> None:
    few = {"tasks.0.train.0.limit": 10, "tasks.0.validation.limit": 20}
    for changes in ({"set": few}, {"arms": {"a": few, "b": few}}):
        task = arm_recipe(load_study(write(tiny_recipe, **changes)), "a", 1).tasks[0]
        assert (task.train[0].limit, task.validation.limit) == (10, 20)
        assert task.train[0].path == str(tiny_recipe.folder / "train.jsonl")
    with pytest.raises(UserError, match=r"^--set student.layers.0=1: student.layers holds a value"):
        arm_recipe(load_study(write(tiny_recipe, set={"student.layers.0": 1})), "a", 1)


def test_the_study_s_task_is_the_first_of_its_keys(tiny_recipe: Any) -> None:
    (task,) = tiny_recipe.content["tasks"]
    tiny_recipe.set("tasks", [task, {**task, "name": "second"}])
    path = write(tiny_recipe, task="second", set={"tasks.0.train.0.limit": 10}, arms={"a": {}, "b": ARMS["b"]})
    for overrides, limit in (([], 10), (["tasks.0.train.0.limit=20"], 20)):
        (found,) = arm_recipe(load_study(path, overrides), "a", 1).tasks
        assert (found.name, found.train[0].limit) == ("second", limit)


def test_another_recipe_need_not_have_the_study_s_task(tiny_recipe: Any) -> None:
    path = write(tiny_recipe, task="toy")
    (task,) = tiny_recipe.content["tasks"]
    assert load_study(path, recipe=tiny_recipe.write()).task == "toy"
    other = tiny_recipe.set("tasks", [{**task, "name": "other"}]).write("other.yaml")
    assert arm_recipe(load_study(path, recipe=other), "a", 1).tasks[0].name == "other"


def test_arms_have_the_same_evaluation_rows(tiny_recipe: Any) -> None:
    other = {"tasks.0.validation.limit": 20, "tasks.0.labels": [0, 1], "tasks.0.max_length": 8}
    study = load_study(write(tiny_recipe, arms={"a": {}, "b": other}))
    with pytest.raises(UserError, match=r"arm 'b' .* another tasks.0.validation and tasks.0.labels than the baseline"):
        require_same_evaluation(study)
    require_same_evaluation(load_study(write(tiny_recipe, arms={"a": {}, "b": {"tasks.0.max_length": 8}})))


def test_windows_of_a_text_are_evaluation_rows_too(tiny_recipe: Any) -> None:
    tiny_recipe.set("family", "decoder").set("pretraining.objective", "clm").set("tasks.0.objective", "clm")
    tiny_recipe.set("teacher.from_scratch.architecture", "gpt2")
    study = load_study(write(tiny_recipe, arms={"a": {}, "b": {"tasks.0.max_length": 24}}))
    with pytest.raises(UserError, match=r"arm 'b' .* another tasks.0.max_length than the baseline 'a'"):
        require_same_evaluation(study)
