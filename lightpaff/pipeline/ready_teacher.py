"""Does a ready-made teacher number the classes, and scale the scores, as the task does?

Where its config names the classes, the names tell (`opening.open_headed` refuses another order). Rows may hold numbers,
configs say LABEL_0, and nobody names a scale: its answers tell.

Shapes: N labelled rows or words, P target positions, T of all rows, V classes.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest, ttest_1samp

from lightpaff.data.draws import generator
from lightpaff.errors import UserError
from lightpaff.models.opening import read_config
from lightpaff.objectives.answers import TOKENS_PREDICTED_TOGETHER, ask_logits
from lightpaff.objectives.batch import NO_GOLD_LABEL
from lightpaff.objectives.few_classes import read_labels
from lightpaff.objectives.model_answers import ModelAnswers
from lightpaff.pipeline.build import TaskSteps
from lightpaff.pipeline.context import ModelSource, RunContext, open_for_task, task_objective

_ROWS_ASKED = 400
_CHANCE = 1e-3
"""Of refusing a teacher whose order, or scale, is right."""
_MANY_SCORES = 20
"""Fewer are always near a straight line."""


def check_ready_teacher(context: RunContext, steps: TaskSteps, teacher: ModelSource) -> None:
    """Refuse a ready-made teacher whose answers fit the labelled rows better in another order of its classes, or on
    another scale.

    Raises:
        UserError: names that order, or both scales; its answers are no numbers; or the model cannot be opened for the
            task.
    """
    if steps.task.objective in ("classify", "tag"):
        _check_order(context, steps, teacher)
    elif steps.task.objective == "regress":
        _check_scale(context, steps, teacher)


def _check_order(context: RunContext, steps: TaskSteps, teacher: ModelSource) -> None:
    labels = read_labels(steps.rows.directory)
    config = read_config(teacher.path)
    stored = [str(config.id2label[number]) for number in sorted(config.id2label)]
    is_named = [name.casefold() for name in stored] == [name.casefold() for name in labels]
    if is_named and steps.task.labels is None:
        # The rows themselves hold the names; opening it refuses what is not of the task.
        open_for_task(context, steps.task, steps.rows, teacher.path, None, 0)
        return
    logits_PV, gold_P = _ask(context, steps, teacher)
    gold_N, answers_N = gold_P[gold_P != NO_GOLD_LABEL], logits_PV.argmax(axis=1)[gold_P != NO_GOLD_LABEL]
    order = better_order(answers_N, gold_N, len(labels))
    if order is None:
        return
    right, other = ((np.array(numbers)[answers_N] == gold_N).mean() for numbers in (range(len(labels)), order))
    remedy = f"set tasks.{steps.task.name}.labels to [{', '.join(labels[number] for number in order)}]"
    raise UserError(
        f"{_place(steps, teacher)} calls its classes {', '.join(stored)}, and its answers fit "
        f"{other:.0%} of {len(gold_N)} labels if they stand for {', '.join(labels[number] for number in order)}, "
        f"{right:.0%} as they stand now ({', '.join(labels)}); {'correct the rows' if is_named else remedy}"
    )


def _check_scale(context: RunContext, steps: TaskSteps, teacher: ModelSource) -> None:
    answers_N1, gold_N = _ask(context, steps, teacher)
    answers_N = answers_N1[:, 0]
    if not is_on_another_scale(answers_N, gold_N):
        return
    raise UserError(
        f"{_place(steps, teacher)} answers {answers_N.min():.3g} to {answers_N.max():.3g} where the labels are "
        f"{gold_N.min():.3g} to {gold_N.max():.3g}, and on another scale it would be much nearer to them; give labels "
        "on the teacher's scale, or leave the key out to fine-tune the teacher here"
    )


def _ask(context: RunContext, steps: TaskSteps, teacher: ModelSource) -> tuple[np.ndarray, np.ndarray]:
    """Its answers at the targets of some labelled rows, P x V, and the labels there, P."""
    model = open_for_task(context, steps.task, steps.rows, teacher.path, None, 0)
    data = task_objective(context, steps.task, steps.rows, "train")
    asked = np.sort(generator("order", 0, 0, len(data.gold_ids)).permutation(data.gold_ids)[:_ROWS_ASKED])
    answerer = ModelAnswers(model, context.hardware.device)
    logits_TV = ask_logits(answerer, data, TOKENS_PREDICTED_TOGETHER, "ask the teacher what it calls the rows", asked)
    is_asked_N = np.isin(np.arange(len(data.targets_N)), asked)
    logits_PV = logits_TV.numpy()[np.repeat(is_asked_N, data.targets_N)]
    if not np.isfinite(logits_PV).all():
        raise UserError(f"{_place(steps, teacher)} says NaN or infinity; look at its weights, or give another teacher")
    return logits_PV, data.batch(asked, draw=0).labels_P.numpy()


def _place(steps: TaskSteps, teacher: ModelSource) -> str:
    return f"tasks.{steps.task.name}.teacher: {teacher.path}"


def is_on_another_scale(answers_N: np.ndarray, gold_N: np.ndarray) -> bool:
    """Whether a straight line through the answers clearly halves their squared error, or more."""
    if len(gold_N) < _MANY_SCORES or np.ptp(answers_N) == 0:
        return False
    line = np.polynomial.Polynomial.fit(answers_N, gold_N, 1)
    now_N, then_N = (answers_N - gold_N) ** 2, (line(answers_N) - gold_N) ** 2
    return bool(ttest_1samp(now_N - 2 * then_N, 0, alternative="greater").pvalue < _CHANCE)


def better_order(answers_N: np.ndarray, gold_N: np.ndarray, classes: int) -> list[int] | None:
    """What each answered class stands for, where that fits the gold classes clearly better than itself; else None.

    Clearly: a sign test over the rows that one reading gets right and the other does not.
    """
    counts_VV = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts_VV, (answers_N, gold_N), 1)
    _, order_V = linear_sum_assignment(-counts_VV)
    gained = int(((order_V[answers_N] == gold_N) & (answers_N != gold_N)).sum())
    lost = int(((order_V[answers_N] != gold_N) & (answers_N == gold_N)).sum())
    if gained <= lost or binomtest(gained, gained + lost, alternative="greater").pvalue > _CHANCE:
        return None
    return [int(number) for number in order_V]
