"""One optimiser step: forward and backward over its micro-batches, clipping, and the update, over all ranks.

Everything random is a function of the seed and the step, so that a resumed run takes the very steps that an
uninterrupted one takes.

Shapes: P target positions.
"""

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightpaff.errors import UserError
from lightpaff.memory import keep_freed_memory
from lightpaff.models.headed import HeadedModel
from lightpaff.objectives.batch import Batch
from lightpaff.recipe_training import Distillation, Training
from lightpaff.targets.soft_targets import SoftTargets
from lightpaff.targets.teacher import Teacher
from lightpaff.training.device import Hardware, without_settings_from
from lightpaff.training.loss import LossSums, distillation_loss
from lightpaff.training.optimiser import create_optimiser, freeze
from lightpaff.training.schedule import learning_rate
from lightpaff.training.score_loss import score_loss
from lightpaff.training.sharding import shard, whole
from lightpaff.training.step_input import StepInput

SUMS = ("total", "nll", "divergence", "count", "gold_count", "tokens", "positions", "gradient_norm", "steps")
"""What a step gives, in this order."""


def create_accelerator(hardware: Hardware) -> Accelerator:
    """The ranks that train together; this process alone where nobody launched others."""
    with without_settings_from("ACCELERATE_", "FSDP_", "PARALLELISM_CONFIG_"):
        return Accelerator(cpu=hardware.device.type == "cpu", mixed_precision="no")


class LossModule(nn.Module):
    """The forward pass with the loss, in one module: what data-parallel wrappers need."""

    def __init__(self, model: HeadedModel, gold_scale: float) -> None:
        super().__init__()
        self.model = model
        self.gold_scale = gold_scale

    def forward(self, batch: Batch, soft_targets: SoftTargets | None, distillation: Distillation) -> LossSums:
        layer = self.model.output_layer(batch.inputs, batch.positions_P)
        told = (batch.labels_P, soft_targets, distillation.weight)
        if self.model.classes == 1:
            features_PD, weight_1D, bias_1 = layer
            assert weight_1D is not None
            return score_loss(features_PD, weight_1D, bias_1, *told, gold_scale=self.gold_scale)
        return distillation_loss(
            *layer,
            *told,
            distillation.temperature,
            gold_scale=self.gold_scale,
            divergence=distillation.divergence,
        )


@dataclass
class OptimiserStep:
    """Takes steps: `take` changes the model in place.

    Attributes:
        model: what is trained, on its device.
        teacher: who gives the soft targets that did not come with the input.
        settings: learning rate and the like.
        distillation: λ and temperature.
        seed: of dropout.
        hardware: device and precision.
        accelerator: the ranks.
        total_steps: of the whole training, for the learning rate.
        gold_scale: what the gold term is multiplied by.
    """

    model: HeadedModel
    teacher: Teacher
    settings: Training
    distillation: Distillation
    seed: int
    hardware: Hardware
    accelerator: Accelerator
    total_steps: int
    gold_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.hardware.device.type == "cpu":
            keep_freed_memory()
        if self.settings.activation_checkpointing:
            compute_activations_again(self.model.model)
            self.model.computes_again = True
        freeze(self.model.model, self.settings)
        self.module: nn.Module = LossModule(self.model, self.gold_scale)
        if self.is_sharded:
            shard(self.module, self.model.model, self.hardware.device)
        else:
            self.module = self.accelerator.prepare(self.module)
        self.optimiser = create_optimiser(self.model, self.settings)

    @property
    def is_sharded(self) -> bool:
        """Whether the ranks hold a part of the model each."""
        return self.settings.sharded and self.accelerator.num_processes > 1

    def take(self, step_input: StepInput) -> Tensor:
        """One step; the sums in the order of `SUMS`, over all ranks, on the device."""
        device = self.hardware.device
        self.model.train()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.settings, step_input.step, self.total_steps)
        local_num_targets = torch.tensor(step_input.local_num_targets, device=device)
        global_num_targets = self.accelerator.reduce(local_num_targets, "sum").clamp(min=1)
        sums = torch.zeros(5, dtype=torch.float64, device=device)
        for number, (batch, stored) in enumerate(step_input.batches):
            # Seeded by place, not carried along: a resumed run needs no generator state.
            torch.manual_seed(_place_seed(self.seed, step_input.step, number, self.accelerator.process_index))
            is_last = number == len(step_input.batches) - 1
            # Gradients of a split model that are not added up at once would be whole on every rank.
            with nullcontext() if is_last or self.is_sharded else self.accelerator.no_sync(self.module):
                with self.hardware.autocast():
                    soft_targets = self.teacher.targets(batch) if stored is None else stored
                    losses: LossSums = self.module(batch, soft_targets, self.distillation)
                # Ranks average their gradients; the sum over ranks is wanted.
                self.accelerator.backward(losses.total * (self.accelerator.num_processes / global_num_targets))
            values = (losses.total, losses.nll, losses.divergence, losses.count, losses.gold_count)
            sums += torch.stack([value.detach().double() for value in values])
        norm = whole(nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_gradient_norm))
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        seen = sums.new_tensor([step_input.local_num_tokens, step_input.local_num_positions])
        global_sums = self.accelerator.reduce(torch.cat([sums, seen]), "sum")
        return torch.cat([global_sums, torch.stack([norm.double(), torch.ones_like(sums[0])])])


def compute_activations_again(model: PreTrainedModel) -> None:
    """Keep a model's activations between its layers only.

    Raises:
        UserError: transformers cannot do that with this architecture.
    """
    if not model.supports_gradient_checkpointing:
        raise UserError(
            f"activation_checkpointing: {type(model).__name__} cannot do it; leave it out, and lower micro_batch_tokens"
        )
    # The newer name; transformers 5.17 has the older one alone.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _place_seed(seed: int, step: int, micro_batch: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, micro_batch, rank]).generate_state(1, np.uint64)[0] >> 1)
