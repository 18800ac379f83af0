"""Figure 1 of the paper as steps: pre-train and fine-tune the teacher, ask it, pre-train and fine-tune the student.

Every one of them is the same loop (`lightpaff.training.loop`) with another objective, teacher and starting model.
"""

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lightpaff.data.batch_order import BatchOrder
from lightpaff.data.corpus import held_out
from lightpaff.data.task_data import TaskRows
from lightpaff.data.token_table import TokenTable
from lightpaff.files import write_json_whole
from lightpaff.models.encoder import CLASSES, MASKED_TOKENS, open_headed, quiet_transformers
from lightpaff.models.fetching import FetchedModel
from lightpaff.models.headed import HeadedModel
from lightpaff.models.initialisation import create_student
from lightpaff.models.shapes import config_identity
from lightpaff.objectives.batch import NO_GOLD_LABEL
from lightpaff.objectives.classify import Classification
from lightpaff.objectives.mlm import MaskedLanguageModelling
from lightpaff.pipeline.arms import CONTROL, Arm
from lightpaff.pipeline.data_steps import LABELS, SEQUENCES
from lightpaff.pipeline.environment import describe_maker
from lightpaff.pipeline.graph import Step, Workplace
from lightpaff.pipeline.inputs import Inputs
from lightpaff.recipe import Distillation, Recipe, Task, Training
from lightpaff.targets.teacher import LiveTeacher, NoTeacher, StoredTeacher, Teacher, predict, store_targets
from lightpaff.training.device import Hardware
from lightpaff.training.loop import TrainingJob, count_steps, train
from lightpaff.training.validation import validate_masked_tokens, validate_task

MODEL = "model"
TRAINING = "training.json"
MADE_WITH = "made with"
"""Among a training step's facts: see `describe_maker`."""
SOFT_TARGETS = "soft_targets.safetensors"
_NO_DISTILLATION = Distillation(weight=0.0)
_TOKENS_PREDICTED_TOGETHER = 16384


@dataclass(frozen=True)
class Start:
    """The model that a training starts from: a directory that is there, or the result of a step.

    Attributes:
        identity: what fingerprints say of it besides the step.
    """

    path: Path
    step: Step | None
    identity: str

    @classmethod
    def of_fetched(cls, model: FetchedModel) -> "Start":
        """Start from a ready-made model."""
        return cls(model.path, None, model.identity)

    @classmethod
    def of_step(cls, step: Step) -> "Start":
        """Start from a step's model."""
        return cls(step.directory / MODEL, step, "step")

    @property
    def inputs(self) -> tuple[Step, ...]:
        """The step, if any, that must be done before."""
        return (self.step,) if self.step else ()


@dataclass(frozen=True)
class Workshop:
    """What all training steps of a run share."""

    recipe: Recipe
    inputs: Inputs
    hardware: Hardware
    root: Path

    @property
    def settings(self) -> dict[str, Any]:
        """What the result of any training depends on besides its own section of the recipe."""
        return {"device": self.hardware.device.type, "precision": self.hardware.precision}

    def open(
        self, path: Path, head: str, classes: int, training: Training | None, labels: list[str] | None, seed: int
    ) -> HeadedModel:
        """Open a model directory on this run's device."""
        return open_headed(
            path,
            head,
            classes,
            device=self.hardware.device,
            attention=self.hardware.attention,
            dropout=training.dropout if training else None,
            labels=labels,
            seed=seed,
            trust_remote_code=self.recipe.teacher.trust_remote_code,
        )


def initial_step(shop: Workshop, arm: Arm, start: Start | None) -> Step:
    """Make the model that training starts from: the student, shared by the distilled one and its control, or a
    teacher with random weights."""
    config = shop.inputs.student_config if arm.is_small else shop.inputs.teacher_config
    initialisation = shop.recipe.student.initialisation if arm.is_small else "random"
    seed = shop.recipe.seeds.pretraining

    def work(step: Step, place: Workplace) -> dict[str, Any]:
        model = create_student(
            config,
            MASKED_TOKENS,
            shop.inputs.vocabulary_size,
            initialisation=initialisation,
            teacher_path=start.path if start else None,
            seed=seed,
            attention="eager",
            trust_remote_code=shop.recipe.teacher.trust_remote_code,
        )
        _save(model, shop, place.result)
        return {}

    settings = {
        "config": config_identity(config),
        "initialisation": initialisation,
        "seed": seed,
        "start": start.identity if start else None,
    }
    name = "make the student" if arm.is_small else "make the teacher"
    return Step(name, "initial", settings, start.inputs if start else (), shop.root, work)


def pretrain_step(shop: Workshop, arm: Arm, corpus: Step, start: Start, teacher: Start | None) -> Step:
    """Masked language modelling on the corpus, with distillation where a teacher is given."""
    recipe = shop.recipe
    assert recipe.pretraining is not None
    pretraining = recipe.pretraining
    training = pretraining.training if arm.is_small else recipe.teacher.pretraining
    assert training is not None
    distillation = pretraining.distillation if teacher else _NO_DISTILLATION
    seed = recipe.seeds.pretraining

    def work(step: Step, place: Workplace) -> dict[str, Any]:
        open_model = partial(shop.open, head=MASKED_TOKENS, classes=shop.inputs.vocabulary_size, labels=None, seed=seed)
        sequences = TokenTable(corpus.directory / SEQUENCES)
        data = _masked_tokens(shop, sequences, pretraining.mask_rate, seed)
        training_ids, validation_ids = held_out(sequences, pretraining.validation_fraction)
        live: Teacher = LiveTeacher(open_model(teacher.path, training=None)) if teacher else NoTeacher()
        job = TrainingJob(
            description=step.name,
            model=open_model(start.path, training=training),
            data=data,
            example_ids=training_ids,
            teacher=live,
            settings=training,
            distillation=distillation,
            seed=seed,
            validate=partial(validate_masked_tokens, data, validation_ids, training.micro_batch_tokens, shop.hardware),
            checkpoints=place.checkpoints,
            fingerprint=step.fingerprint,
            hardware=shop.hardware,
        )
        return _train_and_save(job, shop, place)

    settings = {
        **shop.settings,
        "training": _what_matters(training),
        "distillation": distillation.model_dump(),
        "mask_rate": pretraining.mask_rate,
        "validation_fraction": pretraining.validation_fraction,
        "seed": seed,
        "start": start.identity,
        "teacher": teacher.identity if teacher else None,
    }
    inputs = (corpus, *start.inputs, *(teacher.inputs if teacher else ()))
    return Step(f"pre-train the {arm.name}", "pretrain", settings, inputs, shop.root, work)


def finetune_step(
    shop: Workshop, arm: Arm, task: Task, rows: Step, start: Start, captured: Step | None, seed: int
) -> Step:
    """Fine-tune on a task, with distillation where captured soft targets are given."""
    fine_tuning = shop.recipe.fine_tuning
    training = fine_tuning.training
    if not arm.is_small and fine_tuning.teacher_training is not None:
        training = fine_tuning.teacher_training
    distillation = fine_tuning.distillation if captured else _NO_DISTILLATION

    def work(step: Step, place: Workplace) -> dict[str, Any]:
        labels = read_labels(rows)
        data = task_objective(shop, task, rows, "train")
        validation = task_objective(shop, task, rows, "validation")
        classes = data.number_of_classes
        stored: Teacher = NoTeacher()
        if captured is not None:
            stored = StoredTeacher(captured.directory / SOFT_TARGETS, len(data.lengths_N), shop.hardware.device)
        ids = np.arange(len(data.lengths_N)) if captured else labelled_rows(data)
        job = TrainingJob(
            description=step.name,
            model=shop.open(start.path, CLASSES, classes, training, labels or None, seed),
            data=data,
            example_ids=ids,
            teacher=stored,
            settings=with_steps_of_student(training, data.lengths_N) if arm == CONTROL else training,
            distillation=distillation,
            seed=seed,
            validate=partial(validate_task, validation, task.metric_names, training.micro_batch_tokens, shop.hardware),
            checkpoints=place.checkpoints,
            fingerprint=step.fingerprint,
            hardware=shop.hardware,
        )
        return _train_and_save(job, shop, place)

    settings = {
        **shop.settings,
        "training": _what_matters(training),
        "distillation": distillation.model_dump(),
        "metric": task.metric_names[0],
        "seed": seed,
        "start": start.identity,
    }
    inputs = (rows, *start.inputs, *((captured,) if captured else ()))
    return Step(f"fine-tune the {arm.name} on {task.name}, seed {seed}", "finetune", settings, inputs, shop.root, work)


def with_steps_of_student(training: Training, lengths_N: np.ndarray) -> Training:
    """The control's budget: as many steps as the student takes, who also learns from rows without a label."""
    every_id = np.arange(len(lengths_N))
    order = BatchOrder(lengths_N, every_id, training.batch_size, training.micro_batch_tokens, seed=0)
    steps = count_steps(training, lengths_N, order.steps_per_epoch)
    return training.model_copy(update={"steps": steps, "tokens": None, "epochs": None})


def capture_step(shop: Workshop, task: Task, rows: Step, teacher: Start) -> Step:
    """Ask the fine-tuned teacher once for its logits of every training row."""

    def work(step: Step, place: Workplace) -> dict[str, Any]:
        data = task_objective(shop, task, rows, "train")
        model = shop.open(teacher.path, CLASSES, data.number_of_classes, None, read_labels(rows) or None, 0)
        with shop.hardware.autocast():
            logits_NV = predict(model, data, _TOKENS_PREDICTED_TOGETHER, shop.hardware.device, step.name)
        store_targets(logits_NV, place.result / SOFT_TARGETS)
        return {"rows": len(logits_NV)}

    settings = {**shop.settings, "teacher": teacher.identity}
    name = f"capture the teacher's soft targets for {task.name}"
    return Step(name, "capture", settings, (rows, *teacher.inputs), shop.root, work)


def predict_step(shop: Workshop, arm: Arm, task: Task, rows: Step, model: Start, seed: int) -> Step:
    """A fine-tuned model's logits for the validation and test rows, in float32, as it will be used."""

    def work(step: Step, place: Workplace) -> dict[str, Any]:
        for split in evaluation_splits(task):
            data = task_objective(shop, task, rows, split)
            opened = shop.open(model.path, CLASSES, data.number_of_classes, None, read_labels(rows) or None, 0)
            name = f"{step.name} ({split})"
            logits_NV = predict(opened, data, _TOKENS_PREDICTED_TOGETHER, shop.hardware.device, name)
            store_targets(logits_NV, place.result / f"{split}.safetensors")
        return {}

    settings = {"device": shop.hardware.device.type, "start": model.identity, "splits": evaluation_splits(task)}
    name = f"predict with the {arm.name} on {task.name}, seed {seed}"
    return Step(name, "predict", settings, (rows, *model.inputs), shop.root, work)


def evaluation_splits(task: Task) -> list[str]:
    """The splits that are evaluated; the last one is the one to report."""
    return ["validation", "test"] if task.test else ["validation"]


def read_labels(rows: Step) -> list[str]:
    """The classes of a prepared task, in order; none for a regression."""
    labels: list[str] = json.loads((rows.directory / LABELS).read_text())
    return labels


def task_objective(shop: Workshop, task: Task, rows: Step, split: str) -> Classification:
    """A split of a prepared task as the objective of a training."""
    opened = TaskRows.open(rows.directory / f"{split}.arrow")
    if task.objective == "regress":
        labels_N, classes = opened.labels_N.astype(np.float32), 1
    else:
        labels_N = np.where(np.isnan(opened.labels_N), NO_GOLD_LABEL, opened.labels_N).astype(np.int64)
        classes = len(read_labels(rows))
    configs = (shop.inputs.teacher_config_of(task), shop.inputs.student_config)
    has_segments = any(getattr(config, "type_vocab_size", 0) > 1 for config in configs)
    return Classification(
        opened.tokens,
        labels_N,
        number_of_classes=classes,
        padding_id=shop.inputs.tokenizer.pad_token_id,
        first_lengths_N=opened.first_lengths_N if has_segments and task.columns.text_pair else None,
    )


def _masked_tokens(shop: Workshop, sequences: TokenTable, mask_rate: float, seed: int) -> MaskedLanguageModelling:
    tokenizer = shop.inputs.tokenizer
    return MaskedLanguageModelling(
        sequences,
        special_ids=tokenizer.all_special_ids,
        mask_id=tokenizer.mask_token_id,
        padding_id=tokenizer.pad_token_id,
        number_of_classes=shop.inputs.vocabulary_size,
        mask_rate=mask_rate,
        seed=seed,
    )


def labelled_rows(data: Classification) -> np.ndarray:
    """The rows that have a label: without a teacher the others teach nothing."""
    is_score = data.labels_N.dtype.kind == "f"
    return np.flatnonzero(~np.isnan(data.labels_N) if is_score else data.labels_N != NO_GOLD_LABEL)


def _train_and_save(job: TrainingJob, shop: Workshop, place: Workplace) -> dict[str, Any]:
    progress = train(job)
    _save(job.model.model, shop, place.result)
    write_json_whole(place.result / TRAINING, asdict(progress))
    return {
        "seconds": round(progress.seconds, 2),
        "steps": progress.step,
        "best_step": progress.best_step,
        "tokens": progress.tokens,
        "targets": progress.targets,
        MADE_WITH: describe_maker(shop.hardware.device),
    }


def _save(model: Any, shop: Workshop, result: Path) -> None:
    with quiet_transformers():
        model.save_pretrained(result / MODEL)
    shop.inputs.tokenizer.save_pretrained(result / MODEL)


def _what_matters(training: Training) -> dict[str, Any]:
    """Settings that change the result: not how often it is saved."""
    return training.model_dump(exclude={"checkpoint_seconds"})
