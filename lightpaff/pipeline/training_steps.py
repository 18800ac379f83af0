"""Figure 1 of the paper as steps: pre-train and fine-tune the teacher, ask it, pre-train and fine-tune the student.

Every one of them is the same loop (`lightpaff.training.loop`) with another objective, teacher and starting model.
"""

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lightpaff.data.batch_order import BatchOrder
from lightpaff.data.corpus import held_out
from lightpaff.data.languages import tokenizer_between
from lightpaff.data.token_table import TokenTable
from lightpaff.evaluation.metrics import write_logits
from lightpaff.files import write_json_whole
from lightpaff.models.families import PRETRAINING_HEADS
from lightpaff.models.fetching import FetchedModel
from lightpaff.models.headed import HeadedModel
from lightpaff.models.initialisation import carry_pooler, create_student
from lightpaff.models.opening import NAMED_CLASSES, open_headed, quiet_transformers
from lightpaff.models.shapes import config_identity
from lightpaff.objectives.answers import TOKENS_PREDICTED_TOGETHER, ask_logits
from lightpaff.objectives.few_classes import read_labels
from lightpaff.objectives.model_answers import ModelAnswers
from lightpaff.objectives.objective import Objective
from lightpaff.objectives.table import PRETRAINING_OBJECTIVES, TASK_OBJECTIVES
from lightpaff.objectives.translate import Translation, write_rows, write_targets
from lightpaff.pipeline.arms import Arm, spoken
from lightpaff.pipeline.data_steps import NOT_OF_THE_ROWS, SEQUENCES
from lightpaff.pipeline.environment import describe_maker, what_decides_bits
from lightpaff.pipeline.graph import Step, StepFolders
from lightpaff.pipeline.inputs import Inputs
from lightpaff.recipe import Recipe
from lightpaff.recipe_sections import Distillation, Languages, Task, Training
from lightpaff.targets.teacher import LiveTeacher, NoTeacher, StoredTeacher, Teacher
from lightpaff.training.device import Hardware
from lightpaff.training.loop import TrainingJob, count_steps, train
from lightpaff.training.validation import validate_task, validate_tokens

MODEL = "model"
TRAINING = "training.json"
MADE_WITH = "made with"
"""Among a training step's facts: see `describe_maker`."""
SOFT_TARGETS = "soft_targets.safetensors"
TEACHER_TARGETS = "teacher_targets.arrow"
_NO_DISTILLATION = Distillation(weight=0.0)
Budget = Literal["every row", "labelled rows"]
"""What the steps of a fine-tuning are counted over. A student who hears the teacher learns from every row, and its
control, which has no use for rows without a label, takes as many steps."""


@dataclass(frozen=True)
class ModelSource:
    """The model that a training starts from: a directory that is there, or the result of a step.

    Attributes:
        identity: what fingerprints say of it besides the step.
    """

    path: Path
    step: Step | None
    identity: str

    @classmethod
    def of_fetched(cls, model: FetchedModel) -> "ModelSource":
        """Start from a ready-made model."""
        return cls(model.path, None, model.identity)

    @classmethod
    def of_step(cls, step: Step) -> "ModelSource":
        """Start from a step's model."""
        return cls(step.directory / MODEL, step, "step")

    @property
    def inputs(self) -> tuple[Step, ...]:
        """The step, if any, that must be done before."""
        return (self.step,) if self.step else ()


@dataclass(frozen=True)
class RunContext:
    """What all training steps of a run share.

    Attributes:
        made_with: see `what_decides_bits`; of a finished run, what it was made with.
    """

    recipe: Recipe
    inputs: Inputs
    hardware: Hardware
    root: Path
    made_with: dict[str, str] = field(default_factory=what_decides_bits)

    @property
    def settings(self) -> dict[str, Any]:
        """What the result of any step with a model depends on besides its own section of the recipe."""
        return {
            "device": self.hardware.device.type,
            "precision": self.hardware.precision,
            "attention": self.hardware.attention,
            "made with": self.made_with,
        }

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
        )

    @property
    def pretraining_head(self) -> str:
        """What the family predicts in pre-training."""
        return PRETRAINING_HEADS[self.recipe.family]


@dataclass(frozen=True)
class Supervision:
    """What a student hears from the fine-tuned teacher of its task.

    Attributes:
        captured: its soft targets of every training row, asked once; None where it is asked live.
        live: the teacher that is asked at every batch; None where its answers were captured.
        sequences: its own outputs for the training rows (sequence-level distillation), if wanted.
    """

    captured: Step | None
    live: ModelSource | None
    sequences: Step | None

    @property
    def inputs(self) -> tuple[Step, ...]:
        """The steps that must be done before."""
        steps = [self.captured, self.live.step if self.live else None, self.sequences]
        return tuple(step for step in steps if step is not None)


def initial_step(context: RunContext, arm: Arm, start: ModelSource | None) -> Step:
    """Make the model that training starts from: the student, shared by the distilled one and its control, or a
    teacher with random weights."""
    config = context.inputs.student_config if arm.is_small else context.inputs.teacher_config
    initialisation = context.recipe.student.initialisation if arm.is_small else "random"
    seed = context.recipe.seeds.pretraining

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        model = create_student(
            config,
            context.pretraining_head,
            context.inputs.vocabulary.size,
            initialisation=initialisation,
            teacher_path=start.path if start else None,
            seed=seed,
            attention="eager",
        )
        _save(model, context, folders.result)
        if start is not None:
            carry_pooler(start.path, folders.result / MODEL)
        return {}

    settings = {
        "made with": context.made_with,
        "config": config_identity(config),
        "initialisation": initialisation,
        "seed": seed,
        "start": start.identity if start else None,
    }
    name = "make the student" if arm.is_small else "make the teacher"
    return Step(name, "initial", settings, start.inputs if start else (), context.root, work)


def pretrain_step(context: RunContext, arm: Arm, corpus: Step, start: ModelSource, teacher: ModelSource | None) -> Step:
    """The family's pre-training objective on the corpus, with distillation where a teacher is given."""
    recipe = arm.recipe
    assert recipe.pretraining is not None
    pretraining = recipe.pretraining
    training = pretraining.training if arm.is_small else recipe.teacher.pretraining
    assert training is not None
    distillation = pretraining.distillation if teacher else _NO_DISTILLATION
    seed = recipe.seeds.pretraining

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        open_model = partial(
            context.open, head=context.pretraining_head, classes=context.inputs.vocabulary.size, labels=None, seed=seed
        )
        data = corpus_objective(context, corpus)
        training_ids, validation_ids = corpus_ids(context, corpus)
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
            validate=partial(validate_tokens, data, validation_ids, training.micro_batch_tokens, context.hardware),
            checkpoints=folders.checkpoints,
            fingerprint=step.fingerprint,
            hardware=context.hardware,
        )
        facts = _train_and_save(job, context, folders)
        carry_pooler(start.path, folders.result / MODEL)
        return facts

    settings = {
        **context.settings,
        "training": _what_matters(training),
        "distillation": distillation.model_dump(),
        # The corpus is an input; the rest of the section is another arm's.
        "pretraining": pretraining.model_dump(exclude={"corpus", "training", "distillation"}),
        "seed": seed,
        "start": start.identity,
        "teacher": teacher.identity if teacher else None,
    }
    inputs = (corpus, *start.inputs, *(teacher.inputs if teacher else ()))
    return Step(f"pre-train {spoken(arm.name)}", "pretrain", settings, inputs, context.root, work)


def corpus_objective(context: RunContext, corpus: Step) -> Objective:
    """The pre-training objective over the prepared corpus."""
    pretraining = context.recipe.pretraining
    assert pretraining is not None
    return PRETRAINING_OBJECTIVES[pretraining.objective].open_corpus(
        corpus.directory / SEQUENCES, pretraining, context.inputs.vocabulary, context.recipe.seeds.pretraining
    )


def corpus_ids(context: RunContext, corpus: Step) -> tuple[np.ndarray, np.ndarray]:
    """The prepared corpus's row numbers for training and for validation."""
    pretraining = context.recipe.pretraining
    assert pretraining is not None
    return held_out(TokenTable(corpus.directory / SEQUENCES), pretraining.validation_fraction)


def finetune_step(
    context: RunContext,
    arm: Arm,
    task: Task,
    rows: Step,
    start: ModelSource,
    supervision: Supervision | None,
    budget: Budget,
    seed: int,
) -> Step:
    """The task's objective on its rows, with distillation where the teacher gives supervision."""
    fine_tuning = arm.recipe.fine_tuning
    training = training_of(arm)
    distillation = fine_tuning.distillation if supervision else _NO_DISTILLATION
    objective = TASK_OBJECTIVES[task.objective]

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        data = training_objective(context, task, rows, supervision, seed)
        validation = task_objective(context, objective.for_validation(task), rows, "validation")
        ids = np.arange(len(data.lengths_N)) if supervision else data.gold_ids
        job = TrainingJob(
            description=step.name,
            model=open_for_task(context, task, rows, start.path, training, seed),
            data=data,
            example_ids=ids,
            teacher=_teacher_of(context, task, rows, supervision, data.targets_N),
            settings=with_steps_over(budget, training, data),
            distillation=distillation,
            seed=seed,
            validate=partial(validate_task, validation, task, training.micro_batch_tokens, context.hardware),
            checkpoints=folders.checkpoints,
            fingerprint=step.fingerprint,
            hardware=context.hardware,
        )
        return _train_and_save(job, context, folders, task.languages)

    settings = {
        **context.settings,
        "training": _what_matters(training),
        "budget": budget,
        "distillation": distillation.model_dump(),
        "task": task.model_dump(exclude=NOT_OF_THE_ROWS),
        "metric": task.metric_names[0],
        "seed": seed,
        "start": start.identity,
        "advice": _supervision_identity(task, supervision),
    }
    inputs = (rows, *start.inputs, *(supervision.inputs if supervision else ()))
    name = f"fine-tune {spoken(arm.name)} on {task.name}, seed {seed}"
    return Step(name, "finetune", settings, inputs, context.root, work)


def training_of(arm: Arm) -> Training:
    """How an arm is fine-tuned."""
    fine_tuning = arm.recipe.fine_tuning
    return fine_tuning.training if arm.is_small else fine_tuning.teacher_training or fine_tuning.training


def training_objective(
    context: RunContext, task: Task, rows: Step, supervision: Supervision | None, seed: int
) -> Objective:
    """The training rows of a task; for a student in sequence-level distillation, with the teacher's own outputs."""
    data = task_objective(context, task, rows, "train", seed)
    if supervision is None or supervision.sequences is None:
        return data
    assert isinstance(data, Translation)
    assert task.sequence_distillation is not None
    outputs = TokenTable(supervision.sequences.directory / TEACHER_TARGETS)
    return data.with_teacher_targets(outputs, task.sequence_distillation.ratio, seed)


def _teacher_of(
    context: RunContext, task: Task, rows: Step, supervision: Supervision | None, targets_N: np.ndarray
) -> Teacher:
    if supervision is not None and supervision.captured is not None:
        return StoredTeacher(supervision.captured.directory / SOFT_TARGETS, targets_N, context.hardware.device)
    if supervision is not None and supervision.live is not None:
        return LiveTeacher(open_for_task(context, task, rows, supervision.live.path, None, 0))
    return NoTeacher()


def _supervision_identity(task: Task, supervision: Supervision | None) -> Any:
    if supervision is None:
        return None
    mixture = task.sequence_distillation if supervision.sequences else None
    return {"live": supervision.live and supervision.live.identity, "mixture": mixture and mixture.model_dump()}


def with_steps_over(budget: Budget, training: Training, data: Objective) -> Training:
    """The same training with its budget in steps, counted over the rows that the budget speaks about."""
    ids = np.arange(len(data.lengths_N)) if budget == "every row" else data.gold_ids
    order = BatchOrder(data.lengths_N, ids, training.batch_size, training.micro_batch_tokens, seed=0)
    steps = count_steps(training, data.lengths_N[ids], order.steps_per_epoch)
    return training.model_copy(update={"steps": steps, "tokens": None, "epochs": None})


def capture_step(context: RunContext, arm: Arm, task: Task, rows: Step, teacher: ModelSource) -> Step:
    """Ask the fine-tuned teacher once for its logits of every training row that a student will see."""
    training, seeds = arm.recipe.fine_tuning.training, context.recipe.seeds.fine_tuning

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        data = task_objective(context, task, rows, "train")
        model = open_for_task(context, task, rows, teacher.path, None, 0)
        ids = _seen_ids(training, seeds, data)
        with context.hardware.autocast():
            answerer = ModelAnswers(model, context.hardware.device)
            logits_TV = ask_logits(answerer, data, TOKENS_PREDICTED_TOGETHER, step.name, ids)
        write_logits(folders.result / SOFT_TARGETS, logits_TV.numpy())
        return {"rows": len(ids)}

    # With a whole epoch every row is seen, and the captured answers serve any budget.
    is_part = training.epochs is None or training.epochs < 1
    seen_by = {"training": _what_matters(training), "seeds": seeds} if is_part else "every epoch"
    settings = {**context.settings, "teacher": teacher.identity, "seen by": seen_by}
    name = f"capture the teacher's soft targets for {task.name}"
    return Step(name, "capture", settings, (rows, *teacher.inputs), context.root, work)


def _seen_ids(training: Training, seeds: list[int], data: Objective) -> np.ndarray:
    """The training rows that are in some batch of some seed."""
    ids = np.arange(len(data.lengths_N))
    seen = np.zeros(len(ids), dtype=bool)
    for seed in seeds:
        order = BatchOrder(data.lengths_N, ids, training.batch_size, training.micro_batch_tokens, seed)
        for step in range(min(count_steps(training, data.lengths_N, order.steps_per_epoch), order.steps_per_epoch)):
            seen[np.concatenate(order.micro_batches(step)[1])] = True
    return np.flatnonzero(seen)


def sequences_step(context: RunContext, task: Task, rows: Step, teacher: ModelSource) -> Step:
    """Let the fine-tuned teacher write its own targets for every training row, by beam search (Kim and Rush 2016)."""

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        data = task_objective(context, task, rows, "train")
        assert isinstance(data, Translation)
        vocabulary = context.inputs.vocabulary
        model = open_for_task(context, task, rows, teacher.path, None, 0)
        with context.hardware.autocast():
            written = write_rows(ModelAnswers(model, context.hardware.device), data, task, vocabulary, step.name)
        end = np.int32(vocabulary.tokenizer.eos_token_id)
        write_targets(folders.result / TEACHER_TARGETS, (np.array([*row, end], dtype=np.int32) for row in written))
        return {"rows": len(written)}

    settings = {**context.settings, "teacher": teacher.identity, "generation": task.generation.model_dump()}
    name = f"let the teacher write the targets of {task.name}"
    return Step(name, "sequences", settings, (rows, *teacher.inputs), context.root, work)


def predict_step(context: RunContext, arm: str, task: Task, rows: Step, model: ModelSource, seed: int) -> Step:
    """A fine-tuned model's outputs for the validation and test rows, in float32, as it will be used."""

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        opened = open_for_task(context, task, rows, model.path, None, 0)
        for split in evaluation_splits(task):
            data = task_objective(context, task, rows, split)
            TASK_OBJECTIVES[task.objective].answer(
                ModelAnswers(opened, context.hardware.device),
                data,
                task,
                context.inputs.vocabulary,
                folders.result / split,
                f"{step.name} ({split})",
            )
        return {}

    settings = {
        "device": context.hardware.device.type,
        "made with": context.made_with,
        "start": model.identity,
        "splits": evaluation_splits(task),
        # The rows are an input.
        "task": task.model_dump(exclude=NOT_OF_THE_ROWS - {"stride", "generation"}),
    }
    name = f"predict with {spoken(arm)} on {task.name}, seed {seed}"
    return Step(name, "predict", settings, (rows, *model.inputs), context.root, work)


def evaluation_splits(task: Task) -> list[str]:
    """The splits that are evaluated; the last one is the one to report."""
    return ["validation", "test"] if task.test else ["validation"]


def open_for_task(
    context: RunContext, task: Task, rows: Step, path: Path, training: Training | None, seed: int
) -> HeadedModel:
    """Open a model with the head of a task."""
    data = task_objective(context, task, rows, "validation")
    labels = read_labels(rows.directory) if data.head in NAMED_CLASSES else []
    return context.open(path, data.head, data.number_of_classes, training, labels or None, seed)


def task_objective(context: RunContext, task: Task, rows: Step, split: str, seed: int = 0) -> Objective:
    """A split of a prepared task as the objective of a training."""
    return TASK_OBJECTIVES[task.objective].open_split(task, rows.directory, split, context.inputs.vocabulary, seed)


def _train_and_save(
    job: TrainingJob, context: RunContext, folders: StepFolders, languages: Languages | None = None
) -> dict[str, Any]:
    progress = train(job)
    _save(job.model.model, context, folders.result, languages)
    write_json_whole(folders.result / TRAINING, asdict(progress))
    return {
        "seconds": round(progress.seconds, 2),
        "steps": progress.step,
        "best_step": progress.best_step,
        "tokens": progress.tokens,
        "targets": progress.targets,
        MADE_WITH: describe_maker(context.hardware.device),
    }


def _save(model: Any, context: RunContext, result: Path, languages: Languages | None = None) -> None:
    with quiet_transformers():
        model.save_pretrained(result / MODEL)
    tokenizer_between(context.inputs.tokenizer, languages).save_pretrained(result / MODEL)


def _what_matters(training: Training) -> dict[str, Any]:
    """Settings that change the result: not how often it is saved."""
    return training.model_dump(exclude={"checkpoint_seconds"})
