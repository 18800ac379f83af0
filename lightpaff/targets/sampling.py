"""Draws from many distributions over many classes at once, by inverse cumulative sums in two levels.

A cumulative sum over a whole vocabulary costs as much as the softmax and, in float32, is off by as much as a rare class
is probable. So the classes are summed up in blocks, in float64: a draw first finds its block, then its class there.

Shapes: C positions, K draws, V classes, N blocks, W classes of a block.
"""

import torch
from torch import Tensor

_BLOCK = 256


def draw_classes(p_CV: Tensor, uniforms_CK: Tensor) -> Tensor:
    """Classes drawn with replacement: int64, C x K.

    Args:
        p_CV: probabilities, or anything in proportion to them.
        uniforms_CK: float64 in [0, 1), each the place of one draw in its row's distribution.
    """
    classes = p_CV.shape[1]
    sums_CN = _block_sums(p_CV)
    upto_CN = sums_CN.cumsum(1)
    place_CK = uniforms_CK * upto_CN[:, -1:]
    block_CK = torch.searchsorted(upto_CN, place_CK, right=True).clamp_(max=sums_CN.shape[1] - 1)
    place_CK = place_CK - (upto_CN - sums_CN).gather(1, block_CK)
    class_CKW = block_CK.unsqueeze(2) * _BLOCK + torch.arange(_BLOCK, device=p_CV.device)
    p_CKW = p_CV.gather(1, class_CKW.clamp(max=classes - 1).flatten(1)).view(class_CKW.shape).double()
    upto_CKW = p_CKW.masked_fill_(class_CKW >= classes, 0).cumsum(2)
    # Rounding may put a place behind all of its block: the block's last class that can be drawn is meant.
    last_CK1 = upto_CKW[..., -1:]
    place_CK1 = place_CK.unsqueeze(2).minimum(torch.nextafter(last_CK1, torch.zeros_like(last_CK1)))
    within_CK = torch.searchsorted(upto_CKW, place_CK1, right=True).squeeze(2)
    # NaN has no place, and is found behind all classes: who draws from it shall find it in the entropy.
    return (block_CK * _BLOCK + within_CK).clamp_(max=classes - 1)


def _block_sums(p_CV: Tensor) -> Tensor:
    whole = p_CV.shape[1] // _BLOCK * _BLOCK
    parts = []
    if whole:
        parts.append(p_CV[:, :whole].view(len(p_CV), -1, _BLOCK).sum(2).double())
    if whole < p_CV.shape[1]:
        parts.append(p_CV[:, whole:].sum(1, keepdim=True).double())
    return torch.cat(parts, 1)
