"""Asking a teacher once for what students learn from, as steps: the store is beside the steps, or where the recipe
says, and is shared by all that can learn from it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from lightpaff import ranks
from lightpaff.models.fetching import identity_of_model
from lightpaff.models.headed import HeadedModel
from lightpaff.objectives.batch import Batch
from lightpaff.objectives.objective import Objective
from lightpaff.pipeline.arms import Arm
from lightpaff.pipeline.budget import epochs_of, seen_ids, with_steps_over
from lightpaff.pipeline.context import (
    ModelSource,
    RunContext,
    corpus_ids,
    corpus_objective,
    open_for_task,
    task_objective,
)
from lightpaff.pipeline.data_steps import NOT_OF_THE_ROWS
from lightpaff.pipeline.graph import VERSIONS, Step, StepFolders
from lightpaff.pipeline.target_choice import TargetChoice
from lightpaff.progress import console
from lightpaff.recipe import fingerprint_of
from lightpaff.recipe_sections import Task
from lightpaff.recipe_training import Training
from lightpaff.targets.capture import CaptureRequest, capture
from lightpaff.targets.encodings import Encoding
from lightpaff.targets.place import Place
from lightpaff.targets.soft_targets import Projected
from lightpaff.targets.store import SpoiltStoreError, StoreFacts, TargetStore, read_manifest
from lightpaff.targets.teacher import LiveTeacher

_TOKENS_ASKED_TOGETHER = 16384


@dataclass(frozen=True)
class Captured:
    """Soft targets in a store.

    Attributes:
        step: after which they are there.
        url: where the store is.
        encoding: how soft targets are written there.
        work: asks for them; with (i, n), for every n-th part, beginning with the i-th. Whether all are there then.
        store: opens it, once what is missing or damaged was asked for again. Raises UserError: it is one of something
            else, or a damaged one that the recipe names, which others may be reading.
    """

    step: Step
    url: str
    encoding: Encoding
    work: Callable[[str, tuple[int, int]], bool] = field(repr=False)
    store: Callable[[], TargetStore] = field(repr=False)


@dataclass(frozen=True)
class Supervision:
    """What a student hears from its teacher: the pre-trained one, or the fine-tuned one of its task.

    Attributes:
        captured: its soft targets, asked once; None where it is asked live.
        live: the teacher that is asked at every batch; None where its answers were captured.
        sequences: its own outputs for the training rows (sequence-level distillation), if wanted.
    """

    captured: Captured | None
    live: ModelSource | None
    sequences: Step | None

    @property
    def inputs(self) -> tuple[Step, ...]:
        """The steps that must be done before."""
        steps = [self.captured.step if self.captured else None, self.live.step if self.live else None, self.sequences]
        return tuple(step for step in steps if step is not None)


@dataclass(frozen=True)
class _Subject:
    """What is asked about.

    Attributes:
        name: of the step.
        data: the examples; several where an example's target may be one text or another, the last as long as any.
        ids: of every draw, which of the examples are needed, by the last data set.
        meaning: what soft targets depend on besides teacher and tokenizer.
        needs: what `ids` depends on.
        draws: how many maskings are needed.
        store: where the recipe wants them, if it says.
    """

    name: str
    data: Callable[[], list[Objective]]
    ids: Callable[[Objective], list[np.ndarray]]
    open_teacher: Callable[[], HeadedModel]
    meaning: dict[str, Any]
    needs: Any
    draws: int
    encoding: Encoding
    seed: int
    store: str | None


def capture_pretraining(
    context: RunContext, arm: Arm, corpus: Step, teacher: ModelSource, choice: TargetChoice
) -> Captured:
    """Ask the pre-trained teacher about every masking of the corpus that a student will see."""
    pretraining, seed = arm.recipe.pretraining, arm.recipe.seeds.pretraining
    assert pretraining is not None
    classes = context.inputs.vocabulary.size
    subject = _Subject(
        name="capture the teacher's soft targets for pre-training",
        data=lambda: [corpus_objective(context, corpus)],
        ids=lambda data: seen_ids(data, corpus_ids(context, corpus)[0], pretraining.training, [seed], choice.draws),
        open_teacher=partial(
            context.open, teacher.path, context.pretraining_head, classes, training=None, labels=None, seed=seed
        ),
        meaning={
            "objective": pretraining.objective,
            "seed": seed,
            **pretraining.model_dump(include={"sequence_length", "mask_rate", "fragment_ratio"}),
        },
        needs=[_what_is_seen(pretraining.training, [seed]), pretraining.validation_fraction, choice.draws],
        draws=choice.draws or 1,
        encoding=choice.encoding(pretraining.distillation, classes),
        seed=seed,
        store=pretraining.distillation.targets.store,
    )
    return _captured(context, subject, teacher, (corpus,))


def capture_task(
    context: RunContext,
    arm: Arm,
    task: Task,
    rows: Step,
    teacher: ModelSource,
    choice: TargetChoice,
    open_data: Callable[[], list[Objective]],
    inputs: tuple[Step, ...] = (),
) -> Captured:
    """Ask the fine-tuned teacher about every training row that a student will see."""
    seeds, fine_tuning = context.recipe.seeds.fine_tuning, arm.recipe.fine_tuning
    training, distillation = fine_tuning.training, fine_tuning.distillation
    data = task_objective(context, task, rows, "train")
    counted = with_steps_over("every row", training, data)
    store = distillation.targets.store
    is_whole = epochs_of(training, data, np.arange(len(data.lengths_N))) >= 1
    subject = _Subject(
        name=f"capture the teacher's soft targets for {task.name}",
        data=open_data,
        ids=lambda data: seen_ids(data, np.arange(len(data.lengths_N)), counted, seeds, None),
        open_teacher=lambda: open_for_task(context, task, rows, teacher.path, None, 0),
        meaning={
            "objective": task.objective,
            "task": task.model_dump(exclude=NOT_OF_THE_ROWS),
            # Pairs are found by them too.
            "segments": context.inputs.vocabulary.has_segments,
        },
        # With a whole epoch every row is seen, and the captured answers serve any budget.
        needs="every row" if is_whole else _what_is_seen(training, seeds),
        draws=1,
        encoding=choice.encoding(distillation, data.number_of_classes),
        seed=0,
        store=f"{store}{'' if store.endswith('/') else '/'}{task.name}" if store else None,
    )
    return _captured(context, subject, teacher, (rows, *inputs))


def _what_is_seen(training: Training, seeds: list[int]) -> dict[str, Any]:
    keys = {"steps", "tokens", "epochs", "batch_size", "micro_batch_tokens"}
    return {"seeds": seeds, **training.model_dump(include=keys)}


def _captured(context: RunContext, subject: _Subject, teacher: ModelSource, inputs: tuple[Step, ...]) -> Captured:
    identity = {
        **context.settings,
        "teacher": teacher.step.fingerprint if teacher.step else teacher.identity,
        "tokenizer": fingerprint_of(context.inputs.tokenizer_identity),
        "meaning": subject.meaning,
        "encoding": asdict(subject.encoding),
    }
    own = f"targets-{fingerprint_of([VERSIONS['capture'], identity])[:20]}"
    url = subject.store or str(context.root / own)
    place = Place(url, context.root / "stores")

    def facts() -> StoreFacts:
        meaning = {
            "teacher": identity_of_model(teacher.path),
            "tokenizer": fingerprint_of(context.inputs.tokenizer_identity),
            **subject.meaning,
        }
        return StoreFacts(meaning, subject.encoding, context.settings)

    def work(description: str, part: tuple[int, int]) -> bool:
        @cache
        def live() -> LiveTeacher:
            # Not before there is something to ask: mostly everything is there already.
            return LiveTeacher(subject.open_teacher(), context.hardware.precision)

        def ask(batch: Batch) -> Projected:
            return live().targets(batch.to(context.hardware.device))

        known, finished = facts(), True
        variants = subject.data()
        ids = subject.ids(variants[-1])
        for data in variants:
            request = CaptureRequest(data, ids, known, subject.seed, _TOKENS_ASKED_TOGETHER, description)
            with context.hardware.autocast():
                finished &= capture(request, place, ask, part)
        return finished

    def step_work(step: Step, folders: StepFolders) -> dict[str, Any]:
        if ranks.count() > 1:
            work(step.name, (ranks.number(), ranks.count()))
            ranks.wait()
        if not ranks.is_first():
            return {}
        work(step.name, (0, 1))
        return {"positions": TargetStore(place, facts()).positions, "store": url if subject.store else Path(url).name}

    def store() -> TargetStore:
        opened = partial(TargetStore, place, facts(), draws=subject.draws)
        with ranks.first_before_others():
            try:
                return opened()
            except SpoiltStoreError:
                if subject.store and read_manifest(place) is not None:
                    raise
            console.print(f"{place}: is not whole any more; asking the teacher again for what is not there")
            work(subject.name, (0, 1))
            return opened()

    settings = {**identity, "needs": subject.needs, "store": subject.store}
    step = Step(subject.name, "capture", settings, (*inputs, *teacher.inputs), context.root, step_work)
    return Captured(step, url, subject.encoding, work, store)
