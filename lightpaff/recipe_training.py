"""How a model is trained and whom it listens to, as a recipe says it. Imports neither torch nor transformers."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from lightpaff.recipe_sources import Section

Schedule = Literal["linear", "cosine", "wsd"]
Divergence = Literal["forward_kl", "reverse_kl", "jensen_shannon"]


class Targets(Section):
    """Where the teacher's soft targets come from. Of tasks with few classes they are captured once, whole."""

    kind: Literal["auto", "live", "sampled", "top-k"] = "auto"
    """auto: sampled where the teacher is then asked for half as much or less, else live. live: the teacher is asked at
    every batch. sampled: it is asked once, and some classes drawn from its distribution are kept: loss and gradient are
    the same on average. top-k: its most probable classes, and what the others have together."""
    draws: Annotated[int, Field(gt=0)] = 12
    """Classes that are kept of a position: drawn (sampled) or the most probable (top-k)."""
    epochs: Annotated[int, Field(gt=0)] = 4
    """Maskings of the text that are captured, one an epoch; then they come again. Where nothing is masked (clm, and all
    tasks), one is enough, whatever this says."""
    proposal: Annotated[float, Field(ge=1)] = 1.0
    """For sampled: above 1, classes are drawn from the teacher's distribution softened by this temperature, so that
    rare ones come more often, and weighted back; two more bytes a draw."""
    store: str | None = None
    """A directory or fsspec URL for them, to be shared; of tasks, their names are added. Left out, beside the runs."""


class Distillation(Section):
    """How much the student listens to the teacher (the paper's λ)."""

    weight: Annotated[float, Field(ge=0, le=1)]
    """λ: 0 is ordinary training, 1 listens to the teacher alone."""
    temperature: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Softens both distributions; the term is scaled by its square (Hinton et al. 2015). The paper has 1."""
    divergence: Divergence = "forward_kl"
    """What the student has to bring down: KL(teacher || student), the paper's; the other direction; or their middle."""
    targets: Targets = Targets()

    @model_validator(mode="after")
    def _check_targets(self) -> Self:
        if self.targets.kind in ("sampled", "top-k") and self.divergence != "forward_kl":
            raise ValueError(
                f"targets.kind is {self.targets.kind}, but divergence {self.divergence} needs every class; set "
                "targets.kind to live, or divergence to forward_kl"
            )
        if self.targets.proposal != 1 and self.targets.kind == "top-k":
            raise ValueError("targets.proposal is for sampled, not for top-k; leave it out")
        return self

    @property
    def encoding_keys(self) -> dict[str, Any] | None:
        """What says how soft targets are written where classes are many; None where none are stored."""
        kind = "sampled" if self.targets.kind == "auto" else self.targets.kind
        if self.weight == 0 or kind == "live" or self.divergence != "forward_kl":
            return None
        return {
            "targets.kind": kind,
            "temperature": self.temperature,
            **self.targets.model_dump(include={"draws", "proposal"}),
        }


class Training(Section):
    """One run of the training loop."""

    steps: Annotated[int, Field(gt=0)] | None = None
    """The budget in optimiser steps: give exactly one of steps, tokens and epochs."""
    tokens: Annotated[int, Field(gt=0)] | None = None
    """The budget in tokens that are read."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """The budget in rounds over the training examples."""
    batch_size: Annotated[int, Field(gt=0)] = 32
    """Examples an optimiser step, over accumulation and ranks."""
    micro_batch_tokens: Annotated[int, Field(gt=0)] = 8192
    """The most tokens, padding included, that go through the model at once: lower it when memory runs out. Sources and
    targets of an encoder-decoder are padded apart, and may be up to twice that together.
    The result does not depend on it, but for rounding and the draws of dropout; a run keeps the one it began with."""
    activation_checkpointing: bool = False
    """Keep only what goes in and out of each layer, and compute the rest again for the gradients: less memory for a
    third more work."""
    sharded: bool = False
    """Of several ranks: each holds a part of the weights, gradients and the optimiser's state while it trains (FSDP2),
    and layers are put together while they are used. A live teacher, and a model that is evaluated, are whole on every
    rank."""
    learning_rate: Annotated[float, Field(gt=0)]
    """The highest, after the warmup; of AdamW."""
    schedule: Schedule = "linear"
    """From there to 0: in a straight line, as half a cosine, or wsd: constant, then straight down (see decay)."""
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The share of the steps in which the learning rate rises."""
    decay: Annotated[float, Field(ge=0, le=1)] = 0.2
    """The share of the steps in which the learning rate falls, for the schedule wsd."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's; biases and norms have none."""
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this norm where theirs is larger."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Hidden and attention dropout; left out, the model's own."""
    freeze_embeddings: bool = False
    """Leave the table of tokens as it begins (an output layer that is tied to it, too): less time and memory a step,
    the more so the larger the vocabulary is beside the layers."""
    evaluations: Annotated[int, Field(gt=0)] = 4
    """How often, evenly spread, the model is evaluated on the validation set; the best is kept."""
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 120.0
    """The most work that a kill can lose."""

    @model_validator(mode="after")
    def _check_budget(self) -> Self:
        given = [name for name in ("steps", "tokens", "epochs") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of steps, tokens and epochs; found {', '.join(given) or 'none'}")
        return self
