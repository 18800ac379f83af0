"""The study file: a recipe, the arms that change some of its keys, and what they are compared at.

Imports neither torch nor transformers, so that the command line answers at once.
"""

from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, model_validator

from lightpaff.errors import UserError
from lightpaff.recipe import Recipe, fingerprint_of
from lightpaff.recipe_file import change_recipe, check_content, read_content, read_override
from lightpaff.recipe_sections import Name
from lightpaff.recipe_sources import Section

Match = Literal["steps", "tokens", "flops", "time"]
_ITS_OWN = ("name", "seeds", "control", "arms", "exports")
"""Keys of the recipe that a study decides."""
_TAKEN = ("teacher", "tfidf")
TEACHER_TRAINING = "teacher"
_TRAINING_OF = {
    "pretraining": "pretraining.training",
    "fine_tuning": "fine_tuning.training",
    TEACHER_TRAINING: "fine_tuning.teacher_training",
}
_BUDGETS = ("steps", "tokens", "epochs")
_EVALUATION = ("name", "objective", "validation", "test", "columns", "labels", "metrics")
"""What decides a task's evaluation rows and scores; a window's length does so where texts are cut into windows."""
_WINDOWS = ("max_length", "stride")
_WEIGHT = "fine_tuning.distillation.weight"


def _refuse_numbers_as_names(arms: Any) -> Any:
    # YAML reads on, off, yes and no as truth values, too.
    for name in arms if isinstance(arms, dict) else ():
        if not isinstance(name, str):
            raise ValueError(f"YAML reads the name {name} as no text; put it in quotes")
    return arms


class Noise(Section):
    """The paper's figure 2: how a model's score falls with noise on its parameters."""

    deviations: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)] = [
        *(0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
    ]
    """Standard deviations, as shares of the root mean square of each tensor."""
    draws: Annotated[int, Field(gt=0)] = 3
    """Of the noise, for each deviation."""

    @model_validator(mode="after")
    def _check_deviations(self) -> Self:
        if len(set(self.deviations)) != len(self.deviations):
            raise ValueError(f"deviations needs different ones; found {self.deviations}")
        return self


class Study(Section):
    """Everything that a study does."""

    name: Name
    title: str = ""
    """What it asks, in a few words, for its page."""
    recipe: str
    """The path of the recipe, beginning at the study's file."""
    task: str | None = None
    """Of a recipe with several tasks, the one that the study is about."""
    set: dict[str, Any] = {}
    """Keys of the recipe that are changed for all arms, as --set has them; tasks.0 is the study's task."""
    arms: Annotated[dict[str, dict[str, Any]], Field(min_length=2), BeforeValidator(_refuse_numbers_as_names)]
    """The models that are compared, by name: each is the recipe's student but for the keys that it gives anew. Sources
    are lists there, each with a path: tasks.0.train.0.limit; new paths are absolute."""
    baseline: str
    """The arm that the others are compared with."""
    reference: str | None = None
    """The arm whose budget all others get; left out, the first that is not the baseline."""
    match: Match = "steps"
    """What all arms have as much of, in each stage: optimiser steps; tokens; floating point operations, those of the
    teacher included, so that an arm that does not ask it gets more steps; or time, by what some steps take here. An arm
    that gives a stage's steps, tokens or epochs itself keeps them."""
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1)] = [1, 2, 3]
    """Every arm is pre-trained and fine-tuned with each; the teacher is the same for all seeds, and for all arms that
    leave its labelled rows and keys alone."""
    teacher_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    latency: bool = False
    """Also export each arm's first student as the recipe has it, and measure both beside the teacher: for arms of
    several sizes."""
    x: str | None = None
    """The key whose values, one an arm, are the plot's horizontal axis."""
    noise: Noise | None = None

    @model_validator(mode="after")
    def _check_arms(self) -> Self:
        _check_keys("set", self.set)
        for name, keys in self.arms.items():
            if name in _TAKEN or "/" in name or name.startswith(".") or not name.isprintable() or not name.strip():
                raise ValueError(
                    f"arms: '{name}' cannot be a name of an arm; take one line without '/' that does not begin with "
                    f"'.' and is none of {', '.join(_TAKEN)}"
                )
            _check_keys(f"arms.{name}", keys)
        for key in ("baseline", "reference"):
            if (named := getattr(self, key)) is not None and named not in self.arms:
                raise ValueError(f"{key} is '{named}', which is no arm; take one of {', '.join(self.arms)}")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds needs different ones; found {self.seeds}")
        if self.x is not None and (without := [name for name, keys in self.arms.items() if self.x not in keys]):
            raise ValueError(f"x is {self.x}, which the arm '{without[0]}' does not give; give it, or leave x out")
        for name, value in {name: keys[self.x] for name, keys in self.arms.items() if self.x is not None}.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(
                    f"x is {self.x}, which is {value!r} in the arm '{name}'; give it a number in every arm, or leave "
                    "x out"
                )
        return self

    @property
    def reference_arm(self) -> str:
        """Whose budget all others get."""
        return self.reference or next(name for name in self.arms if name != self.baseline)

    def fingerprint(self) -> str:
        """A sha256 over the study with its defaults."""
        return fingerprint_of(self.model_dump(mode="json"))


def _check_keys(place: str, keys: dict[str, Any]) -> None:
    """Refuse keys that a study decides, and a section behind one of its own keys, which it would silently undo."""
    for key in keys:
        if key.split(".")[0] in _ITS_OWN:
            raise ValueError(f"{place}: the study itself decides '{key}'; leave it out")
    for earlier, later in combinations(keys, 2):
        if earlier.startswith(f"{later}."):
            raise ValueError(f"{place}: '{later}' would undo '{earlier}' before it; put the one into the other")


def load_study(
    path: Path, overrides: list[str] | None = None, recipe: Path | None = None, task: str | None = None
) -> Study:
    """Read a study file.

    Args:
        path: of the YAML file.
        overrides: `key=value` for keys of the recipe, in all arms; they come before those of the study's arms.
        recipe: instead of the one that the study names.
        task: likewise.

    Raises:
        UserError: names the file and the key, what was found and what to do.
    """
    if "tasks" in (keys := _content_of(path)) and "recipe" not in keys:
        raise UserError(f"{path}: is a recipe, not a study; add --preset quick, or see the folder studies/")
    content = read_content(Study, path).model_dump()
    given = read_overrides(overrides or [])
    # After those of the file: a section replaces what stands before it.
    content["set"] = {key: value for key, value in content["set"].items() if key not in given} | given
    content["recipe"] = str(recipe.resolve() if recipe else (path.parent / content["recipe"]).resolve())
    # The file's task may be none of another recipe.
    is_known = recipe is None or content["task"] in _task_names(recipe)
    content["task"] = task or (content["task"] if is_known else None)
    return check_content(Study, content, path)


def read_overrides(overrides: list[str]) -> dict[str, Any]:
    """What --set gives, by the key.

    Raises:
        UserError: one of them is no key and value.
    """
    return dict(map(read_override, overrides))


def is_study(path: Path) -> bool:
    """Whether a YAML file is a study, and not a recipe: it names a recipe."""
    keys = _content_of(path)
    return "recipe" in keys and "tasks" not in keys


def _content_of(path: Path) -> dict[str, Any]:
    """Nothing of what is no YAML with keys."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _task_names(recipe: Path) -> list[Any]:
    """As they are written."""
    tasks = _content_of(recipe).get("tasks")
    return [task.get("name") if isinstance(task, dict) else None for task in tasks] if isinstance(tasks, list) else []


def arm_recipe(study: Study, arm: str, seed: int, budgets: dict[str, int] | None = None) -> Recipe:
    """The recipe of one arm with one seed.

    Args:
        budgets: optimiser steps by the section: `pretraining`, `fine_tuning` and `TEACHER_TRAINING`; left out, the
            arm's own.

    Raises:
        UserError: a key that the arm or the study gives is none of the recipe's; names it.
    """
    keys = dict(study.arms[arm])
    for section, steps in (budgets or {}).items():
        keys |= {f"{_TRAINING_OF[section]}.{budget}": None for budget in _BUDGETS}
        keys |= {f"{_TRAINING_OF[section]}.steps": steps}
    keys |= {
        "name": study.name,
        "seeds": {"teacher": study.teacher_seed, "pretraining": seed, "fine_tuning": [seed]},
        "control": False,
        "arms": {},
        **({} if study.latency else {"exports": []}),
    }
    written = _task_names(Path(study.recipe))
    place = written.index(study.task) if study.task in written else 0
    base = Recipe.load(
        study.recipe, [f"{_in_recipe(key, place)}={_as_yaml(value)}" for key, value in study.set.items()]
    )
    names = [task.name for task in base.tasks]
    if (study.task is None and len(names) > 1) or (study.task is not None and study.task not in names):
        found = f"no task '{study.task}'" if study.task else "several tasks"
        raise UserError(f"{study.recipe}: has {found}; name one with the key task or --task: {', '.join(names)}")
    if study.task is not None:
        base = change_recipe(
            base, {"tasks": [task for task in base.model_dump()["tasks"] if task["name"] == study.task]}
        )
    if base.fine_tuning.teacher_training is None:
        # What an arm changes of its student's training is not its teacher's.
        base = change_recipe(base, {"fine_tuning.teacher_training": base.fine_tuning.training.model_dump()})
    try:
        made = change_recipe(base, keys)
        listened = base.fine_tuning.distillation.weight > 0 or _WEIGHT in _flat(study.arms[arm])
        is_silenced = made.fine_tuning.distillation.weight == 0 and listened
        return change_recipe(made, {"tasks": _without_teachers_texts(made)}) if is_silenced else made
    except UserError as error:
        raise UserError(f"arm '{arm}' of the study {study.name}: {error}") from error


def _in_recipe(key: str, place: int) -> str:
    """A key of `set` where the recipe has it: the study's task is tasks.0, as in its arms, whatever its place there."""
    is_of_task = key == "tasks.0" or key.startswith("tasks.0.")
    return f"tasks.{place}{key.removeprefix('tasks.0')}" if is_of_task else key


def _as_yaml(value: Any) -> str:
    """On one line; of a scalar, without the mark of the document's end."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**9).strip().removesuffix("\n...")


def require_same_evaluation(study: Study) -> None:
    """Arms that are measured on other rows, or by other scores, cannot be compared.

    Raises:
        UserError: names the arm and its keys.
    """
    expected = arm_recipe(study, study.baseline, study.seeds[0]).tasks
    for arm in study.arms:
        tasks = arm_recipe(study, arm, study.seeds[0]).tasks
        changed = ["tasks"] if len(tasks) != len(expected) else []
        for place, (own, other) in enumerate(zip(tasks, expected, strict=False)):
            keys = _EVALUATION + (_WINDOWS if other.objective == "clm" else ())
            changed += [f"tasks.{place}.{key}" for key in keys if getattr(own, key) != getattr(other, key)]
        if changed:
            raise UserError(
                f"arm '{arm}' of the study {study.name}: has another {' and '.join(changed)} than the baseline "
                f"'{study.baseline}', and arms are compared on the same evaluation rows; give it under set, for all"
            )


def _without_teachers_texts(recipe: Recipe) -> list[dict[str, Any]]:
    """Who hears nothing of the teacher does not learn from its texts either (translate)."""
    silent: dict[str, Any] = {"sequence_distillation": None, "unlabelled": []}
    return [{**task, **(silent if task["sequence_distillation"] else {})} for task in recipe.model_dump()["tasks"]]


def own_budgets(keys: dict[str, Any]) -> set[str]:
    """The sections whose steps, tokens or epochs an arm with these keys gives itself."""
    given = _flat(keys)
    return {
        section for section, place in _TRAINING_OF.items() if any(f"{place}.{budget}" in given for budget in _BUDGETS)
    }


def _flat(keys: dict[str, Any], prefix: str = "") -> set[str]:
    """Keys with dots, of whatever sections stand as a whole too."""
    inner = [_flat(value, f"{prefix}{key}.") for key, value in keys.items() if isinstance(value, dict)]
    return {f"{prefix}{key}" for key in keys}.union(*inner)
