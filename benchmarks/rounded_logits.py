"""What rounding logits to bf16 before the softmax does to the gradient, and that lightpaff's loss does not.

    python benchmarks/rounded_logits.py            # a readable table
    python benchmarks/rounded_logits.py --json     # its rows as JSON lines

The student's features are the teacher's with noise: the closer they are, the less is left of the gradient, and the
more of it is rounding. `rounded` multiplies in bf16 and gives bf16 logits, as autocast does by itself; `lightpaff` is
the product's own loss under the same autocast. The error is that of the gradient at the student's features, relative
to the norm of the exact one (float64, plain autograd, the same bf16 factors), by the median of some seeds.

Shapes: P target positions, V classes, D hidden.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lightpaff.targets.soft_targets import Projected
from lightpaff.training.loss import distillation_loss

POSITIONS, CLASSES, HIDDEN, SEEDS = 64, 30522, 384, 3
NOISES = (1.0, 0.3, 0.1, 0.03, 0.01)


@dataclass(frozen=True)
class Row:
    """One distance between student and teacher."""

    noise: float
    """Of the student's features, relative to their size."""
    divergence: float
    """KL(teacher || student), nats a position."""
    rounded: float
    """The gradient's relative error with bf16 logits."""
    lightpaff: float


def gradient(features_PD: Tensor, weight_VD: Tensor, teacher_PD: Tensor, dtype: torch.dtype) -> tuple[Tensor, float]:
    """Of KL(teacher || student) at the features, by autograd; logits are made in `dtype` and then widened."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    features_PD = features_PD.to(dtype).requires_grad_()
    weight_VD = weight_VD.to(dtype)
    log_p_PV = functional.log_softmax((features_PD @ weight_VD.T).to(wide), 1)
    log_q_PV = functional.log_softmax((teacher_PD.to(dtype) @ weight_VD.T).to(wide), 1)
    divergence = functional.kl_div(log_p_PV, log_q_PV, log_target=True, reduction="sum")
    divergence.backward()  # type: ignore[no-untyped-call]
    assert features_PD.grad is not None
    return features_PD.grad, divergence.item() / len(features_PD)


def measure(noise: float) -> Row:
    """The median over the seeds."""
    errors: dict[str, list[float]] = {"rounded": [], "lightpaff": []}
    divergences = []
    for seed in range(SEEDS):
        random = torch.Generator().manual_seed(seed)
        weight_VD = (torch.randn(CLASSES, HIDDEN, generator=random) * 3 / HIDDEN**0.5).bfloat16().float()
        teacher_PD = torch.randn(POSITIONS, HIDDEN, generator=random).bfloat16().float()
        student_PD = teacher_PD + noise * torch.randn(POSITIONS, HIDDEN, generator=random)
        student_PD = student_PD.bfloat16().float()
        exact_PD, divergence = gradient(student_PD, weight_VD, teacher_PD, torch.float64)
        divergences.append(divergence)
        rounded_PD, _ = gradient(student_PD, weight_VD, teacher_PD, torch.bfloat16)
        ours_PD = student_PD.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            told = Projected(teacher_PD, weight_VD, None)
            labels_P = torch.zeros(POSITIONS, dtype=torch.int64)
            losses = distillation_loss(ours_PD, weight_VD, None, labels_P, told, weight=1.0)
        losses.total.backward()  # type: ignore[no-untyped-call]
        assert ours_PD.grad is not None
        for name, found_PD in (("rounded", rounded_PD), ("lightpaff", ours_PD.grad)):
            errors[name].append(float((found_PD.double() - exact_PD).norm() / exact_PD.norm()))
    return Row(noise, statistics.median(divergences), *(statistics.median(own) for own in errors.values()))


def rows() -> Iterator[Row]:
    """From far to near."""
    yield from map(measure, NOISES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    if not as_json:
        print("| student's noise | KL, nats | gradient error, bf16 logits | lightpaff |\n|---|---|---|---|")
    for row in rows():
        cells = f"| {row.noise:g} | {row.divergence:.2g} | {row.rounded:.2%} | {row.lightpaff:.2%} |"
        print(json.dumps(asdict(row)) if as_json else cells, flush=True)


if __name__ == "__main__":
    main()
