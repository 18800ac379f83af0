"""How a teacher's distribution at a position is written down, and what becomes of it when read: one function each way
and one row of `ENCODINGS` for each encoding.

`sampled` draws classes from the distribution (Anshumann et al. 2025): the expectation of the loss and of its gradient
is that of the whole distribution. `top-k` keeps the most probable classes and what all others have together. `dense`
keeps the logits, where classes are few.

Shapes: C positions of one chunk, P target positions, K stored classes, V classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lightpaff.targets.sampling import draw_classes
from lightpaff.targets.soft_targets import Dense, Sparse, Stored

Kind = Literal["sampled", "top-k", "dense"]
Arrays = dict[str, NDArray[np.generic]]
"""What is stored, by name; every array's first axis is that of the positions."""

_TWO_BYTES = 2**16


@dataclass(frozen=True)
class Encoding:
    """What is kept of a distribution.

    Attributes:
        kind: how.
        classes: V.
        stored: K, the draws or the most probable classes; of no meaning for `dense`.
        temperature: at which the distribution is taken; of no meaning for `dense`.
        proposal: draws are from the distribution at this temperature more (1: from itself), and then weighted.
    """

    kind: Kind
    classes: int
    stored: int = 0
    temperature: float = 1.0
    proposal: float = 1.0

    def encode(self, logits_CV: Tensor, uniforms_CK: Tensor) -> dict[str, Tensor]:
        """What is kept of these logits, on their device.

        Args:
            logits_CV: the teacher's.
            uniforms_CK: float64 in [0, 1), one a draw; C x 0 where nothing is drawn.
        """
        # Autocast would round the entropy.
        with torch.autocast(logits_CV.device.type, enabled=False):
            return ENCODINGS[self.kind].encode(self, logits_CV.float(), uniforms_CK)

    def decode(self, arrays: Arrays) -> Stored:
        """Soft targets of the positions in `arrays`, on the CPU."""
        return ENCODINGS[self.kind].decode(self, arrays)

    @property
    def draws(self) -> int:
        """Uniform numbers that a position needs."""
        return self.stored if self.kind == "sampled" else 0

    @property
    def bytes_a_position(self) -> int:
        """What a store holds of one distribution."""
        kept = self.encode(torch.zeros(1, self.classes), torch.zeros(1, self.draws, dtype=torch.float64))
        return sum(array.nbytes for array in kept.values())


@dataclass(frozen=True)
class Coder:
    """Both ways of one encoding."""

    encode: Callable[[Encoding, Tensor, Tensor], dict[str, Tensor]]
    decode: Callable[[Encoding, Arrays], Stored]


def pack_classes(ids_PK: Tensor, classes: int) -> Tensor:
    """Classes in as few bytes as they need: uint16 P x K, or uint8 P x K x 3 (the lowest byte first)."""
    if classes <= _TWO_BYTES:
        return ids_PK.to(torch.int32).to(torch.uint16)
    return torch.stack([ids_PK & 255, (ids_PK >> 8) & 255, ids_PK >> 16], dim=2).to(torch.uint8)


def unpack_classes(packed: NDArray[np.generic]) -> NDArray[np.int64]:
    """The same back: P x K."""
    if packed.dtype == np.uint16:
        return packed.astype(np.int64)
    low, middle, high = np.moveaxis(packed.astype(np.int64), 2, 0)
    return np.asarray(low | middle << 8 | high << 16)


def _encode_sampled(encoding: Encoding, logits_CV: Tensor, uniforms_CK: Tensor) -> dict[str, Tensor]:
    logits_CV = _softened(logits_CV, encoding.temperature)
    logits_CV = logits_CV - logits_CV.amax(1, keepdim=True)
    q_CV = functional.softmax(logits_CV, 1)
    if encoding.proposal == 1:
        ids_CK = draw_classes(q_CV, uniforms_CK)
        return {"classes": pack_classes(ids_CK, encoding.classes), "entropy": _entropy(q_CV, logits_CV)}
    drawn_from_CV = functional.softmax(logits_CV / encoding.proposal, 1)
    ids_CK = draw_classes(drawn_from_CV, uniforms_CK)
    weights_CK = q_CV.gather(1, ids_CK) / drawn_from_CV.gather(1, ids_CK) / encoding.stored
    return {
        "classes": pack_classes(ids_CK, encoding.classes),
        "weights": weights_CK.half(),
        "entropy": _entropy(q_CV, logits_CV),
    }


def _decode_sampled(encoding: Encoding, arrays: Arrays) -> Sparse:
    ids_PK = torch.from_numpy(unpack_classes(arrays["classes"]))
    if "weights" in arrays:
        weights_PK = torch.from_numpy(arrays["weights"]).float()
    else:
        weights_PK = torch.full(ids_PK.shape, 1 / encoding.stored)
    entropy_P = torch.from_numpy(np.array(arrays["entropy"]))
    return Sparse(ids_PK, weights_PK, None, entropy_P, encoding.temperature)


def _encode_top_k(encoding: Encoding, logits_CV: Tensor, uniforms_CK: Tensor) -> dict[str, Tensor]:
    q_CV = functional.softmax(_softened(logits_CV, encoding.temperature), 1)
    weights_CK, ids_CK = q_CV.topk(encoding.stored)
    # Not 1 less the others: that would keep no digit of a small rest.
    rest_C = q_CV.scatter_(1, ids_CK, 0).sum(1)
    return {
        "classes": pack_classes(ids_CK, encoding.classes),
        "probabilities": weights_CK.half(),
        "rest": rest_C,
    }


def _decode_top_k(encoding: Encoding, arrays: Arrays) -> Sparse:
    weights_PK = torch.from_numpy(arrays["probabilities"]).float()
    rest_P = torch.from_numpy(np.array(arrays["rest"]))
    # 16 bits round them: what is stored shall be a distribution again.
    weights_PK *= ((1 - rest_P) / weights_PK.sum(1)).unsqueeze(1)
    entropy_P = -(torch.special.xlogy(weights_PK, weights_PK).sum(1) + torch.special.xlogy(rest_P, rest_P))
    ids_PK = torch.from_numpy(unpack_classes(arrays["classes"]))
    return Sparse(ids_PK, weights_PK, rest_P, entropy_P, encoding.temperature)


def _encode_dense(encoding: Encoding, logits_CV: Tensor, uniforms_CK: Tensor) -> dict[str, Tensor]:
    return {"logits": logits_CV}


def _decode_dense(encoding: Encoding, arrays: Arrays) -> Dense:
    return Dense(torch.from_numpy(np.array(arrays["logits"])))


def _softened(logits_CV: Tensor, temperature: float) -> Tensor:
    return logits_CV if temperature == 1 else logits_CV / temperature


def _entropy(q_CV: Tensor, logits_CV: Tensor) -> Tensor:
    """Of logits whose highest is 0 in every row, which it overwrites. There log q is the logit and that of the highest
    probability: half of what the exponential of a log-softmax costs."""
    # What has no probability adds 0, not 0 · -inf.
    weighted_CV = logits_CV.clamp_(min=torch.finfo(logits_CV.dtype).min).mul_(q_CV)
    return -q_CV.amax(1).log() - weighted_CV.sum(1)


ENCODINGS: dict[Kind, Coder] = {
    "sampled": Coder(_encode_sampled, _decode_sampled),
    "top-k": Coder(_encode_top_k, _decode_top_k),
    "dense": Coder(_encode_dense, _decode_dense),
}
