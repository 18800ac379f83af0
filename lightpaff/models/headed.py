"""A plain transformers model seen as trunk -> target positions -> pre-head -> projection.

Every family and every head is the same four steps, so the loss never needs more than the hidden states of the
target positions and the rows of one weight matrix.

Shapes: B examples, S tokens, P target positions, V classes, D hidden.
"""

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from lightpaff.models.last_layer import LastLayer
from lightpaff.models.projection import exact_dtype, project

NEVER = -1e4
"""A logit without any probability, still a number: the difference of two is 0."""


def _unchanged(model: PreTrainedModel, hidden_PD: Tensor) -> Tensor:
    return hidden_PD


@dataclass(frozen=True)
class HeadLayout:
    """Where a model splits.

    Attributes:
        trunk: from the model's inputs to hidden_BSD, the states after its last layer (of a `LastLayer` those that are
            chosen).
        projection: the attribute path of the `nn.Linear` from features_PD to logits.
        pre_head: from hidden_PD to features_PD, what the projection takes (its width may differ from the trunk's).
        bias: the attribute path of a tensor (V or 1 x V) that is the projection's bias where the `nn.Linear` has none
            of its own: BART's and Marian's `final_logits_bias`.
        spans: each output of the projection chooses among the tokens of its row, instead of the outputs being the
            classes at a token: where an answer starts, and where it ends.
    """

    trunk: Callable[[PreTrainedModel, dict[str, Tensor]], Tensor]
    projection: str
    pre_head: Callable[[PreTrainedModel, Tensor], Tensor] = _unchanged
    bias: str | None = None
    spans: bool = False


def embedding_tables(model: nn.Module) -> set[Tensor]:
    """The weights that are looked up, once each, however many modules share them (an encoder-decoder's sides do)."""
    return {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}


def token_tables(model: PreTrainedModel) -> set[Tensor]:
    """Of the embedding tables those of tokens: one, or one a side of an encoder-decoder."""
    tokens = model.get_input_embeddings().weight.shape[0]
    return {table for table in embedding_tables(model) if table.shape[0] == tokens}


def span_logits(logits_BS2: Tensor, mask_BS: Tensor, classes: int) -> Tensor:
    """Where spans start and end as two classes a row, each among its tokens: 2B x V, start and end in turn.

    Args:
        logits_BS2: of every token.
        mask_BS: 1 where there is a token; padding, and what is beyond S, is never chosen.
        classes: V, at least S.
    """
    logits_B2S = logits_BS2.masked_fill(mask_BS[..., None] == 0, NEVER).transpose(1, 2)
    return nn.functional.pad(logits_B2S.flatten(0, 1), (0, classes - logits_BS2.shape[1]), value=NEVER)


class HeadedModel(nn.Module):
    """A model with one head, whose logits are computed at the target positions only; by one thread at a time.

    Attributes:
        model: the transformers model; `model.save_pretrained` saves everything.
        classes: V, the real classes; rows of a padded output layer beyond it are left out. Of spans, the tokens that a
            row has at most.
        last_layer: the trunk's, where it is computed at the target positions only.
        computes_again: whether a backward pass runs layers again.
    """

    model: PreTrainedModel

    def __init__(
        self, model: PreTrainedModel, layout: HeadLayout, classes: int, last_layer: LastLayer | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.layout = layout
        self.classes = classes
        self.last_layer = last_layer
        self.computes_again = False
        self._forget_positions: Callable[[], None] = lambda: None
        rows = classes if layout.spans else self._projection().out_features
        assert 0 < classes <= rows, f"{classes} classes do not fit an output layer of {rows} rows"

    def features(self, inputs: dict[str, Tensor], positions_P: Tensor) -> Tensor:
        """What the projection takes at the target positions: features_PD.

        Args:
            inputs: the trunk's arguments by name (`input_ids` B x S, `attention_mask` B x S, ...).
            positions_P: int64 indices into the B*S flattened tokens.
        """
        return self.layout.pre_head(self.model, self._states_at(inputs, positions_P))

    def _states_at(self, inputs: dict[str, Tensor], positions_P: Tensor) -> Tensor:
        def choose(states_BSD: Tensor) -> Tensor:
            return states_BSD.flatten(0, 1).index_select(0, positions_P)

        if self.last_layer is None:
            return choose(self.layout.trunk(self.model, inputs))
        self._forget_positions()
        self._forget_positions = self.last_layer.compute_only(lambda states_BSD: choose(states_BSD)[None]).remove
        is_computed_again = False
        try:
            states_1PD = self.layout.trunk(self.model, inputs)
            # What the backward pass computes again has to be what was computed.
            is_computed_again = self.training and self.computes_again
        finally:
            if not is_computed_again:
                self._forget_positions()
        return states_1PD[0]

    @property
    def weight_VD(self) -> Tensor:
        """The projection's weight, real classes only."""
        return self._projection().weight[: self.classes]

    @property
    def bias_V(self) -> Tensor | None:
        """The projection's bias, real classes only; None where it has none."""
        bias: Tensor | None = self._projection().bias
        if bias is None and self.layout.bias is not None:
            bias = attrgetter(self.layout.bias)(self.model).flatten()
        return None if bias is None else bias[: self.classes]

    def output_layer(
        self, inputs: dict[str, Tensor], positions_P: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What the logits are made of: features_PD, weight_VD and bias_V. Of spans the logits themselves, for every row
        one of its start and one of its end: 2B x V, without a weight."""
        if not self.layout.spans:
            return self.features(inputs, positions_P), self.weight_VD, self.bias_V
        hidden_BSD = self.layout.pre_head(self.model, self.layout.trunk(self.model, inputs))
        projection = self._projection()
        # Not by `project`, whose product on a GPU has no derivative: two outputs cost nothing.
        with torch.autocast(hidden_BSD.device.type, enabled=False):
            logits_BS2 = functional.linear(hidden_BSD.to(exact_dtype(hidden_BSD)), projection.weight, projection.bias)
        return span_logits(logits_BS2, inputs["attention_mask"], self.classes), None, None

    def logits(self, inputs: dict[str, Tensor], positions_P: Tensor) -> Tensor:
        """The logits of the real classes at the target positions: logits_PV, never rounded to bf16."""
        return project(*self.output_layer(inputs, positions_P))

    def projection_weights(self) -> list[Tensor]:
        """The parameters of the projection: what `output_layer` gives parts of."""
        return list(self._projection().parameters())

    def _projection(self) -> nn.Linear:
        projection = attrgetter(self.layout.projection)(self.model)
        assert isinstance(projection, nn.Linear)
        return projection
