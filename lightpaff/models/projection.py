"""The output layer's product, whose result is never rounded: the softmax takes float32 logits.

Rounded to bf16, logits are off by up to 1/256 of their size; where teacher and student nearly agree, that is more than
what they still differ by.

Shapes: P target positions, V classes, D hidden.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional


def project(features_PD: Tensor, weight_VD: Tensor | None, bias_V: Tensor | None) -> Tensor:
    """features_PD @ weight_VD.T + bias_V: logits_PV in float32 (float64 for float64 features). Without a weight, the
    features are the logits.

    Under bf16 autocast the factors may be rounded to bf16 (on GPUs, and on CPUs with AMX); sums are kept in float32.
    """
    is_rounded = product_dtype(features_PD) == torch.bfloat16
    features_PD, weight_VD, bias_V = factors(features_PD, weight_VD, bias_V)
    if weight_VD is None:
        return features_PD
    with torch.autocast(features_PD.device.type, enabled=False):
        if features_PD.dtype == torch.bfloat16:
            product_PV = torch.mm(features_PD, weight_VD.T, out_dtype=torch.float32)
            return product_PV if bias_V is None else product_PV.add_(bias_V)
        with _bf16_factors() if is_rounded else contextlib.nullcontext():
            return functional.linear(features_PD, weight_VD, bias_V)


def factors(
    features_PD: Tensor, weight_VD: Tensor | None, bias_V: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The arguments of `project` in the types that it multiplies: who calls it for chunk after chunk casts once."""
    exact = exact_dtype(features_PD)
    if weight_VD is None:
        return features_PD.to(exact), None, None
    is_rounded = product_dtype(features_PD) == torch.bfloat16
    dtype = torch.bfloat16 if is_rounded and features_PD.is_cuda else exact
    return features_PD.to(dtype), weight_VD.to(dtype), None if bias_V is None else bias_V.to(exact)


def exact_dtype(tensor: Tensor) -> torch.dtype:
    """Float32, of float64 that: what must not be rounded to bf16."""
    return torch.promote_types(tensor.dtype, torch.float32)


def product_dtype(features: Tensor) -> torch.dtype:
    """What autocast would multiply in; like autocast, leaves float64 alone."""
    device_type = features.device.type
    if features.dtype == torch.float64 or not torch.is_autocast_enabled(device_type):
        return features.dtype
    return torch.get_autocast_dtype(device_type)


@contextlib.contextmanager
def _bf16_factors() -> Iterator[None]:
    """Let oneDNN round the factors of a float32 product to bf16, which it does with AMX alone; even where it does not,
    its product is faster than torch's own. Before torch 2.9 it is not asked."""
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    if matmul is None:
        yield
        return
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
