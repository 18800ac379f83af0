"""What a run starts from, fetched and checked before anything is trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightpaff.data.evaluation_texts import EvaluatedRows
from lightpaff.data.languages import has_own_languages, tokenizer_between
from lightpaff.data.sources import ResolvedSource, resolve
from lightpaff.data.task_sources import TaskSources
from lightpaff.errors import UserError
from lightpaff.models.architecture import CLASSES, SPANS, TOKEN_CLASSES
from lightpaff.models.families import PRETRAINING_HEADS, check_family
from lightpaff.models.fetching import FetchedModel, fetch_model
from lightpaff.models.initialisation import check_sizes, keep_kinds, taken_layers
from lightpaff.models.opening import check_directory, lacks_head, read_config
from lightpaff.models.shapes import longest_input, scratch_config, shape_of, student_config
from lightpaff.models.vocabulary import (
    compare_vocabularies,
    load_tokenizer,
    number_of_classes,
    tokenizer_identity,
)
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.pipeline.graph import DoneStep, run_step
from lightpaff.pipeline.tokenizer_step import tokenizer_step
from lightpaff.progress import console
from lightpaff.recipe import Recipe
from lightpaff.recipe_families import Family
from lightpaff.recipe_sections import Task
from lightpaff.recipe_sources import Source

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Sources:
    """The data of a run: the corpus, and each task's by its name."""

    corpus: list[ResolvedSource]
    tasks: dict[str, TaskSources]

    def evaluated(self, tasks: list[Task]) -> list[EvaluatedRows]:
        """What no pre-training may see: the validation and test rows of each task."""
        found = []
        for task in tasks:
            own = self.tasks[task.name]
            found.append(EvaluatedRows(task.columns, [*own.validation, *own.test], task.objective))
        return found


@dataclass(frozen=True)
class Inputs:
    """Everything that the steps read, besides each other's results.

    Attributes:
        teacher: the ready-made teacher; None when it is made here.
        vocabulary: teacher's and students'.
        trained_tokenizer: where the tokenizer was trained here, that step.
        teacher_config: the teacher's shape.
        student_config: the student's shape.
        ready_student: a ready-made small model to start from, where the recipe names one.
        task_teachers: teachers that are fine-tuned already, by task.
        task_teacher_configs: their shapes.
    """

    sources: Sources
    teacher: FetchedModel | None
    vocabulary: Vocabulary
    trained_tokenizer: DoneStep | None
    teacher_config: "PreTrainedConfig"
    student_config: "PreTrainedConfig"
    ready_student: FetchedModel | None
    task_teachers: dict[str, FetchedModel]
    task_teacher_configs: dict[str, "PreTrainedConfig"]

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """Teacher's and students'."""
        return self.vocabulary.tokenizer

    def teacher_config_of(self, task: Task) -> "PreTrainedConfig":
        """The shape of the teacher that is fine-tuned on a task."""
        return self.task_teacher_configs.get(task.name, self.teacher_config)

    @property
    def tokenizer_identity(self) -> Any:
        """What fingerprints say of the tokenizer: its vocabulary and rules, whole."""
        return tokenizer_identity(self.tokenizer)


def gather_inputs(recipe: Recipe, root: Path) -> Inputs:
    """Fetch and check a run's inputs; `root` is the folder of steps and downloads.

    Raises:
        UserError: for anything missing, unreadable or that does not fit together.
    """
    downloads = root / "downloads"
    console.print("Fetching and checking the inputs")
    sources = _resolve_sources(recipe, downloads)
    teacher, tokenizer_path, made_here = _find_teacher(recipe, sources, root, downloads)
    tokenizer = load_tokenizer(tokenizer_path, recipe.family)
    _check_languages(recipe, tokenizer)
    if teacher is not None:
        teacher_config = read_config(teacher.path)
        _check_pretraining_head(recipe, teacher)
    else:
        assert recipe.teacher.from_scratch is not None
        teacher_config = scratch_config(recipe.teacher.from_scratch, tokenizer)
    ready_student = _find_ready_student(recipe, tokenizer, downloads)
    classes = number_of_classes(tokenizer, teacher_config)
    small = _find_student_config(recipe, teacher_config, ready_student, classes)
    task_teachers = _find_task_teachers(recipe, tokenizer, downloads)
    task_configs = {name: read_config(fetched.path) for name, fetched in task_teachers.items()}
    named_configs = {"teacher": teacher_config, "student": small}
    named_configs |= {f"teacher of {name}": config for name, config in task_configs.items()}
    for name, config in named_configs.items():
        _check_lengths(recipe, name, longest_input(config))
    vocabulary = Vocabulary(
        tokenizer,
        classes,
        # A BERT whose tokenizer gives no segments (multilingual MiniLM, e5) was trained with one.
        has_segments="token_type_ids" in tokenizer.model_input_names
        and any(getattr(config, "type_vocab_size", 0) > 1 for config in named_configs.values()),
        decoder_start_id=getattr(teacher_config, "decoder_start_token_id", None),
    )
    return Inputs(
        sources=sources,
        teacher=teacher,
        vocabulary=vocabulary,
        trained_tokenizer=made_here,
        teacher_config=teacher_config,
        student_config=small,
        ready_student=ready_student,
        task_teachers=task_teachers,
        task_teacher_configs=task_configs,
    )


def _resolve_sources(recipe: Recipe, downloads: Path) -> Sources:
    def all_of(sources: list[Source]) -> list[ResolvedSource]:
        return [resolve(source, downloads) for source in sources]

    def of_task(task: Task) -> TaskSources:
        return TaskSources(
            train=all_of(task.train),
            unlabelled=all_of(task.unlabelled),
            validation=all_of([task.validation]),
            test=all_of([task.test] if task.test else []),
        )

    return Sources(
        corpus=all_of(list(recipe.pretraining.corpus)) if recipe.pretraining else [],
        tasks={task.name: of_task(task) for task in recipe.tasks},
    )


def _languages(recipe: Recipe) -> list[str]:
    """Every language that the recipe names, for the tokens of a tokenizer that is made here."""
    named = {source.language for source in recipe.pretraining.corpus} if recipe.pretraining else set()
    for task in recipe.tasks:
        if task.languages is not None:
            named |= {task.languages.source, task.languages.target}
    return sorted(language for language in named if language is not None)


def _check_languages(recipe: Recipe, tokenizer: "PreTrainedTokenizerBase") -> None:
    for task in recipe.tasks:
        if task.objective != "translate":
            continue
        if task.languages is None and has_own_languages(tokenizer) and tokenizer.tgt_lang is None:
            raise UserError(
                f"tasks.{task.name}.languages: are not given, and the teacher's tokenizer marks each text with one; "
                f"name the two, such as {{source: {tokenizer.src_lang}, target: ...}}"
            )
        tokenizer_between(tokenizer, task.languages)


def _find_teacher(
    recipe: Recipe, sources: Sources, root: Path, downloads: Path
) -> tuple[FetchedModel | None, Path, DoneStep | None]:
    """The teacher, where its tokenizer is, and the step that trained the tokenizer."""
    teacher = recipe.teacher
    if teacher.from_scratch is not None:
        evaluated = sources.evaluated(recipe.tasks)
        step = tokenizer_step(teacher.from_scratch, recipe.family, _languages(recipe), sources.corpus, evaluated, root)
        return None, step.directory, run_step(step)
    assert teacher.source is not None
    named = [teacher.source] if isinstance(teacher.source, str) else teacher.source
    fetched = fetch_model(named, downloads, teacher.sha256)
    _require_usable(fetched, recipe.family, "teacher.source")
    return fetched, fetched.path, None


def _require_usable(model: FetchedModel, family: Family, key: str) -> None:
    """Refuse now what would otherwise be noticed only when the model is opened, hours later."""
    check_family(read_config(model.path), family, f"{key}: {model.origin}")
    check_directory(model.path, PRETRAINING_HEADS[family])


def _find_student_config(
    recipe: Recipe, teacher_config: "PreTrainedConfig", ready: FetchedModel | None, classes: int
) -> "PreTrainedConfig":
    if ready is None:
        config = student_config(teacher_config, recipe.student, classes)
        if recipe.student.initialisation == "teacher":
            check_sizes(config, teacher_config)
            keep_kinds(config, teacher_config, taken_layers(config, teacher_config, recipe.student.named_layers))
        return config
    config = read_config(ready.path)
    found = shape_of(config).model_dump()
    for field, wanted in recipe.student.model_dump(include=set(found), exclude_none=True).items():
        if wanted != found[field]:
            raise UserError(
                f"student.{field} is {wanted}, but {ready.origin} has {found[field]}; set student.{field} to that, or "
                "another student.initialisation"
            )
    return config


def _check_lengths(recipe: Recipe, name: str, longest: int | None) -> None:
    if longest is None:
        return
    wanted = {f"tasks.{task.name}.max_length": task.max_length for task in recipe.tasks}
    for task in recipe.tasks:
        if task.objective == "translate":
            wanted[f"tasks.{task.name}.max_target_length"] = task.max_target_length
    if recipe.pretraining is not None:
        wanted["pretraining.sequence_length"] = recipe.pretraining.sequence_length
    for key, length in wanted.items():
        if length > longest:
            raise UserError(f"{key} is {length}, but the {name} reads {longest} tokens at most; lower it")


def _check_pretraining_head(recipe: Recipe, teacher: FetchedModel) -> None:
    has_live_teacher = recipe.pretraining is not None and recipe.pretraining.distillation.weight > 0
    head = PRETRAINING_HEADS[recipe.family]
    if recipe.teacher.pretraining is not None or not lacks_head(teacher.path, head):
        return
    if has_live_teacher:
        raise UserError(
            f"teacher.source: {teacher.origin} comes without a language modelling head, so it has nothing to "
            "say in pre-training; add teacher.pretraining (a few hundred steps make one) or leave out pretraining"
        )
    if recipe.family != "encoder":
        raise UserError(
            f"teacher.source: {teacher.origin} comes without a language modelling head (saved without it, or a "
            "classifier), which its tasks need; take the model that has it, or add pretraining with teacher.pretraining"
        )


def _find_ready_student(recipe: Recipe, tokenizer: "PreTrainedTokenizerBase", downloads: Path) -> FetchedModel | None:
    source = recipe.student.initialisation
    if source in ("random", "teacher"):
        return None
    fetched = fetch_model([source], downloads)
    _require_usable(fetched, recipe.family, "student.initialisation")
    if (
        recipe.family != "encoder"
        and recipe.pretraining is None
        and lacks_head(fetched.path, PRETRAINING_HEADS[recipe.family])
    ):
        raise UserError(
            f"student.initialisation: {fetched.origin} comes without a language modelling head, which its tasks need; "
            "take the model that has it, or add pretraining"
        )
    own = load_tokenizer(fetched.path, recipe.family)
    compare_vocabularies(tokenizer, own, ("the teacher", "student.initialisation"), recipe.family)
    number_of_classes(tokenizer, read_config(fetched.path))
    return fetched


def _find_task_teachers(
    recipe: Recipe, tokenizer: "PreTrainedTokenizerBase", downloads: Path
) -> dict[str, FetchedModel]:
    teachers = {}
    for task in recipe.tasks:
        if task.teacher is not None:
            teachers[task.name] = _fetch_task_teacher(recipe.family, task, task.teacher, tokenizer, downloads)
    return teachers


_TASK_HEADS = {"tag": (TOKEN_CLASSES, "token classification"), "answer": (SPANS, "question answering")}
"""Of an encoder's task, where that is not a class a row."""


def _fetch_task_teacher(
    family: Family, task: Task, source: str, tokenizer: "PreTrainedTokenizerBase", downloads: Path
) -> FetchedModel:
    fetched = fetch_model([source], downloads)
    _require_usable(fetched, family, f"tasks.{task.name}.teacher")
    own, config = load_tokenizer(fetched.path, family), read_config(fetched.path)
    compare_vocabularies(tokenizer, own, ("the teacher", f"tasks.{task.name}.teacher"), family)
    head, called = (PRETRAINING_HEADS[family], "language model")
    if family == "encoder":
        head, called = _TASK_HEADS.get(task.objective, (CLASSES, "classification"))
    if lacks_head(fetched.path, head):
        raise UserError(
            f"tasks.{task.name}.teacher: {fetched.origin} comes without a {called} head, so it is not "
            "fine-tuned; leave the key out to fine-tune the teacher here"
        )
    number_of_classes(tokenizer, config)
    if family == "encoder":
        check_directory(fetched.path, head)
    if head == CLASSES:
        _check_problem(config, task, f"tasks.{task.name}.teacher: {fetched.origin}")
    return fetched


def _check_problem(config: "PreTrainedConfig", task: Task, name: str) -> None:
    """Refuse a classifier for a regression, and the other way round, and one that gives a row several labels."""
    kind = getattr(config, "problem_type", None)
    if kind == "multi_label_classification":
        raise UserError(
            f"{name} was trained to give a row several labels (problem_type multi_label_classification in its "
            "config.json), and a task has one class a row; leave the key out to fine-tune the teacher here"
        )
    is_regression = kind == "regression" or (kind is None and len(config.id2label) == 1)
    if is_regression != (task.objective == "regress"):
        found = "a score" if is_regression else f"{len(config.id2label)} classes"
        raise UserError(
            f"{name} was trained for {found}, and the objective is {task.objective}; take another objective, or leave "
            "the key out to fine-tune the teacher here"
        )
