"""How much a student says what its teacher says, right or wrong.

Shapes: N rows, V classes.
"""

import numpy as np
from scipy.special import log_softmax

from lightpaff.evaluation.metrics import Predictions, correlation


def agreement(first: Predictions, second: Predictions) -> float:
    """The share of the rows to which both give the same class; for a regression, the correlation of both scores."""
    if first.logits_NV.shape[1] == 1:
        return correlation(first.scores_N, second.scores_N)
    return float(np.mean(first.classes_N == second.classes_N))


def mean_kl(teacher: Predictions, student: Predictions) -> float:
    """The mean over the rows of KL(teacher || student), in nats: 0 says what the teacher says."""
    assert teacher.logits_NV.shape[1] > 1, "a regression gives no distribution"
    log_teacher_NV = log_softmax(teacher.logits_NV.astype(np.float64), axis=1)
    log_student_NV = log_softmax(student.logits_NV.astype(np.float64), axis=1)
    kl_N = (np.exp(log_teacher_NV) * (log_teacher_NV - log_student_NV)).sum(axis=1)
    return float(np.maximum(kl_N, 0.0).mean())
