"""The last layer of an encoder, computed at those positions alone that are read.

After a layer's attention no position sees another one. Where a head reads the first token of a row, or the masked ones,
three quarters of the last layer's weights have nothing to do at the others.

Shapes: B examples, S tokens, D hidden.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@dataclass(frozen=True)
class LastLayer:
    """Where it is in a model.

    Attributes:
        path: of the layer.
        attention: the prefix of the names of what looks at all positions.
        rest: the module after it, which takes states of B x S x D and nothing else.
    """

    path: str
    attention: str
    rest: nn.Module

    def is_read_alone(self, module: str) -> bool:
        """Whether a module, by its name in the model, works at the positions that are read only."""
        return f"{module}.".startswith(f"{self.path}.") and not f"{module}.".startswith(f"{self.attention}.")

    def compute_only(self, choose: Callable[[Tensor], Tensor]) -> RemovableHandle:
        """Till the handle is removed: what `choose` takes of states_BSD, which is then what the trunk gives."""
        return self.rest.register_forward_pre_hook(lambda _, states_BSD: tuple(choose(states) for states in states_BSD))
