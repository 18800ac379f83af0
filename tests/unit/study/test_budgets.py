"""What is equal between the arms of a study."""

from typing import Any

import pytest

from lightpaff.objectives.table import PRETRAINING_OBJECTIVES
from lightpaff.pipeline.workload import flops_of, workload_of
from lightpaff.study import budgets
from lightpaff.study.budgets import find_budgets
from lightpaff.study.cells import STAGES, lay_out
from lightpaff.study.definition import arm_recipe, own_budgets
from tests.unit.study.made_studies import SILENT, study_of


def test_a_teacher_of_few_rows_takes_as_many_steps(tiny_recipe: Any) -> None:
    tiny_recipe.set("fine_tuning.training", {"epochs": 2, "batch_size": 16, "learning_rate": 3e-3})
    study = study_of(tiny_recipe, {"few": {"tasks.0.train.0.limit": 16}, "all": {}}, reference="all")
    found = find_budgets(study, tiny_recipe.folder / "out")
    assert found["few"] == found["all"] == {"pretraining": 4, "fine_tuning": 12, "teacher": 12}
    training = arm_recipe(study, "few", 1, found["few"]).fine_tuning.teacher_training
    assert training is not None
    assert (training.steps, training.epochs) == (12, None)


def test_what_an_arm_changes_of_its_student_is_not_its_teacher_s(tiny_recipe: Any) -> None:
    arms = {"quick": {"fine_tuning.training.learning_rate": 1e-2}, "slow": {}}
    study = study_of(tiny_recipe, arms)
    quick, slow = (arm_recipe(study, arm, 1).fine_tuning for arm in arms)
    assert quick.teacher_training == slow.teacher_training == slow.training


def test_a_budget_may_stand_in_a_section(tiny_recipe: Any) -> None:
    training = {"steps": 9, "batch_size": 16, "learning_rate": 3e-3}
    arms = {"usual": {}, "longer": {"fine_tuning": {"training": training}}}
    assert own_budgets(arms["longer"]) == {"fine_tuning"}
    found = find_budgets(study_of(tiny_recipe, arms, reference="usual"), tiny_recipe.folder / "out")
    assert (found["usual"]["fine_tuning"], found["longer"]["fine_tuning"]) == (5, 9)


def test_soft_targets_that_are_captured_once_cost_the_same_whatever_the_steps(tiny_recipe: Any) -> None:
    tiny_recipe.set("fine_tuning.training", {"epochs": 4, "batch_size": 16, "learning_rate": 3e-3})
    arms = {"none": SILENT, "whole": {}, "half": {"student.hidden_size": 16, "student.heads": 1}}
    tiny_recipe.set("student.initialisation", "random")
    study = study_of(tiny_recipe, arms, reference="whole", match="flops")
    found, spent = find_budgets(study, tiny_recipe.folder / "out"), {}
    for arm in arms:
        cell = lay_out(study, arm, 1, tiny_recipe.folder / "out", found[arm])
        training = next(one for one in cell.trainings if one.task is not None)
        flops = flops_of(cell.context, training, workload_of(cell.context, training))
        spent[arm] = flops.own + flops.teacher
        assert (flops.once > 0) == (arm != "none")
    assert spent == pytest.approx(dict.fromkeys(arms, spent["whole"]), rel=0.05)


@pytest.mark.parametrize(
    ("section", "training", "targets"),
    [
        ("fine_tuning", {"steps": 2}, {}),
        ("pretraining", {"steps": 2}, {"targets": {"kind": "sampled"}}),
    ],
)
def test_how_the_teacher_is_asked_is_looked_up_at_the_steps_that_were_found(
    tiny_recipe: Any, section: str, training: dict[str, Any], targets: dict[str, Any]
) -> None:
    """With so few steps an epoch is not asked for as a whole: what asking once costs changes with them."""
    tiny_recipe.set(f"{section}.training", {**training, "batch_size": 8, "learning_rate": 3e-3})
    tiny_recipe.set(f"{section}.distillation", {"weight": 0.9, **targets})
    tiny_recipe.set("student.initialisation", "random")
    arms = {"none": SILENT, "whole": {}, "half": {"student.hidden_size": 16, "student.heads": 1}}
    study = study_of(tiny_recipe, arms, reference="whole", match="flops")
    found, spent = find_budgets(study, tiny_recipe.folder / "out"), {}
    for arm in arms:
        cell = lay_out(study, arm, 1, tiny_recipe.folder / "out", found[arm])
        one = next(one for one in cell.trainings if STAGES[one.stage] == section)
        workload = workload_of(cell.context, one)
        flops = flops_of(cell.context, one, workload)
        spent[arm] = flops.own + flops.teacher
        assert abs(spent[arm] - spent.get("whole", spent[arm])) <= 2 * spent[arm] / workload.steps


def test_a_teacher_that_costs_more_than_everything_is_refused(
    tiny_recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightpaff.errors import UserError

    study = study_of(tiny_recipe, {"none": SILENT, "both": {}}, reference="none", match="flops")
    monkeypatch.setattr(
        budgets,
        "_cost",
        lambda match, context, training: budgets._Cost(
            workload_of(context, training).steps, 1.0, 10.0 if training.asks_teacher != "never" else 0.0
        ),
    )
    with pytest.raises(UserError, match=r"arm 'both' .*: asking its teacher alone costs more than 'none' spends in"):
        find_budgets(study, tiny_recipe.folder / "out")


def test_who_hears_nothing_sees_the_same_maskings(tiny_recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightpaff.pipeline import build

    chosen = []
    choose = build.choose_pretraining_targets
    monkeypatch.setattr(build, "choose_pretraining_targets", lambda *given: chosen.append(choose(*given)) or chosen[-1])
    assert PRETRAINING_OBJECTIVES["mlm"].draws_anew
    tiny_recipe.content["pretraining"]["training"] = {"epochs": 12, "batch_size": 16, "learning_rate": 3e-3}
    study = study_of(tiny_recipe, {"none": SILENT, "both": {}})
    for arm in study.arms:
        lay_out(study, arm, 1, tiny_recipe.folder / "out", None)
    draws = {choice.draws for choice in chosen}
    assert len(draws) == 1
    assert draws != {None}


def test_an_arm_is_silenced_whatever_the_recipe_s_weight(tiny_recipe: Any) -> None:
    tiny_recipe.content["tasks"] = [
        {"name": "toy", "objective": "translate", "train": "pairs.jsonl", "validation": "pairs.jsonl"}
        | {"unlabelled": ["more.jsonl"], "sequence_distillation": {"ratio": 0.5}}
    ]
    tiny_recipe.content["family"] = "encoder-decoder"
    tiny_recipe.content["pretraining"]["objective"] = "mssm"
    tiny_recipe.content["teacher"]["from_scratch"]["architecture"] = "mbart"
    tiny_recipe.set("fine_tuning.distillation", {"weight": 0.0})
    study = study_of(tiny_recipe, {"none": SILENT, "texts alone": {}})
    none, texts = (arm_recipe(study, arm, 1).tasks[0] for arm in study.arms)
    assert none.sequence_distillation is None
    assert texts.sequence_distillation is not None
