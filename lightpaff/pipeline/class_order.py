"""Does a ready-made classifier number the classes as the task does?

Where its config names them, the names tell (`opening.open_headed` refuses another order). Where it says LABEL_0 or
names of its own, its answers tell.

Shapes: N labelled rows or words, P target positions, T of all rows, V classes.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest

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
"""Of refusing a teacher whose order is right."""


def check_class_order(context: RunContext, steps: TaskSteps, teacher: ModelSource) -> None:
    """Refuse a ready-made teacher whose answers fit the labelled rows better in another order of its classes.

    Raises:
        UserError: names that order; or the model cannot be opened for the task.
    """
    if steps.task.objective not in ("classify", "tag"):
        return
    labels = read_labels(steps.rows.directory)
    model = open_for_task(context, steps.task, steps.rows, teacher.path, None, 0)
    config = read_config(teacher.path)
    stored = [str(config.id2label[number]) for number in sorted(config.id2label)]
    if [name.casefold() for name in stored] == [name.casefold() for name in labels]:
        return
    data = task_objective(context, steps.task, steps.rows, "train")
    gold = data.gold_ids
    asked = np.sort(generator("order", 0, 0, len(gold)).permutation(gold)[:_ROWS_ASKED])
    answerer = ModelAnswers(model, context.hardware.device)
    logits_TV = ask_logits(answerer, data, TOKENS_PREDICTED_TOGETHER, "ask the teacher for its classes", asked)
    gold_P = data.batch(asked, draw=0).labels_P.numpy()
    answers_P = logits_TV[~logits_TV[:, 0].isnan()].argmax(dim=1).numpy()
    gold_N, answers_N = gold_P[gold_P != NO_GOLD_LABEL], answers_P[gold_P != NO_GOLD_LABEL]
    order = better_order(answers_N, gold_N, len(labels))
    if order is None:
        return
    right, other = ((np.array(numbers)[answers_N] == gold_N).mean() for numbers in (range(len(labels)), order))
    raise UserError(
        f"tasks.{steps.task.name}.teacher: {teacher.path} calls its classes {', '.join(stored)}, and its answers fit "
        f"{other:.0%} of {len(gold_N)} labels if they stand for {', '.join(labels[number] for number in order)}, "
        f"{right:.0%} as they stand now ({', '.join(labels)}); set tasks.{steps.task.name}.labels to "
        f"[{', '.join(labels[number] for number in order)}]"
    )


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
