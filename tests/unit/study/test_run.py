"""What a study's directory is taken by, what is refused before anything is trained, and what a failure leaves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightpaff.errors import UserError
from lightpaff.files import whole_file
from lightpaff.pipeline.graph import Step
from lightpaff.study import preset
from lightpaff.study.preset import quick_study
from lightpaff.study.record import claim
from lightpaff.study.run import do_all, plan_study, run_study
from tests.unit.study.made_studies import SILENT, study_of


def test_a_quick_study_goes_on_with_what_it_was_asked_for(tiny_recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preset, "_SECONDS", 1e-9)
    recipe, output = tiny_recipe.write(), tiny_recipe.folder / "out"
    given = ["fine_tuning.training.steps=7", "student.layers=2"]
    study, _ = quick_study(recipe, given, output)
    assert (study.set["fine_tuning.training.steps"], study.set["student.layers"]) == (1, 2)
    assert quick_study(recipe, given, output)[0] == study
    for other in ([], given[:1], [*given[:1], "student.layers=1"]):
        with pytest.raises(UserError, match=r"was begun with the --set \{.*'student.layers': 2\}, not"):
            quick_study(recipe, other, output)


def test_a_plan_takes_no_directory_and_counts_what_is_left(tiny_recipe: Any) -> None:
    output = tiny_recipe.folder / "out"
    arms = {"none": SILENT, "both": {}}
    one = plan_study(study_of(tiny_recipe, arms), output)
    assert not output.exists()
    two = plan_study(study_of(tiny_recipe, arms, seeds=[1, 2]), output)
    assert one.seconds < two.seconds < 2 * one.seconds
    claim(study_of(tiny_recipe, arms), output)
    assert plan_study(study_of(tiny_recipe, arms), output).arms
    with pytest.raises(UserError, match="holds another study of that name"):
        plan_study(study_of(tiny_recipe, arms, seeds=[1, 2]), output)


def test_classes_that_an_arm_lacks_are_seen_before_training(tiny_recipe: Any) -> None:
    rows = [{"sentence": f"text {number}", "label": label} for number, label in enumerate("abcacacaca")]
    (tiny_recipe.folder / "letters.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tiny_recipe.folder / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[2:]))
    tiny_recipe.set("tasks.0.train", "letters.jsonl").set("tasks.0.validation", "some.jsonl")
    few = {"tasks.0.train": [{"path": str(tiny_recipe.folder / "some.jsonl")}]}
    with pytest.raises(UserError, match=r"arm 'few' .* the evaluation rows of toy are not those of the baseline 'all'"):
        plan_study(study_of(tiny_recipe, {"all": {}, "few": few}), tiny_recipe.folder / "out")


def test_what_fails_does_not_keep_the_rest_from_being_done(tmp_path: Path) -> None:
    def step(name: str, *inputs: Step) -> Step:
        def work(step: Step, folders: Any) -> dict[str, Any]:
            if name == "hot":
                raise UserError("the loss is not a number")
            with whole_file(folders.result / "done.txt") as path:
                path.write_text(name)
            return {}

        return Step(name, "finetune", {"name": name}, inputs, tmp_path / "steps", work)

    hot, cold = step("hot"), step("cold")
    done, failed = do_all([hot, step("after hot", hot), cold])
    assert list(done) == [cold.fingerprint]
    assert failed == {hot.fingerprint: "hot: the loss is not a number"}


def test_a_quick_study_is_of_one_recipe(tiny_recipe: Any, run_cli: Callable[..., Any]) -> None:
    recipe = tiny_recipe.write()
    told = run_cli("study", recipe, "--preset", "quick", "--recipe", recipe)
    assert told.code == 2
    assert "--preset quick studies the recipe" in told.message


def test_an_arm_that_fails_is_named(tiny_recipe: Any) -> None:
    hot = {"fine_tuning.training.learning_rate": 1e30, "fine_tuning.training.max_gradient_norm": 1e30}
    study, output = study_of(tiny_recipe, {"none": SILENT, "hot": hot}), tiny_recipe.folder / "out"
    with pytest.raises(UserError, match=r"'hot': fine-tune .*; change or leave out what failed, delete .*study.json"):
        run_study(study, output)
    assert not (output / "report").exists()
    assert len(list((tiny_recipe.folder / "steps").glob("predict-*"))) == 2
