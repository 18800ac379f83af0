"""The recipe: everything a run does, as a YAML file checked before anything runs.

Imports neither torch nor transformers, so that the command line answers at once.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from lightpaff.recipe_families import FAMILIES, Family
from lightpaff.recipe_file import read_recipe
from lightpaff.recipe_sections import Export, FineTuning, Name, Precision, Pretraining, Seeds, Student, Task, Teacher
from lightpaff.recipe_sources import Section

_TAKEN_ARMS = ("teacher", "student", "control", "tfidf")
_ARM_NAME = re.compile(r"[\w .-]{1,40}")
_OF_AN_ARM = tuple(
    f"{stage}.{section}" for stage in ("pretraining", "fine_tuning") for section in ("training", "distillation")
)


class Recipe(Section):
    """Everything that a run does. See `lightpaff schema` for the same as a JSON schema."""

    name: Name
    """For folders and the report."""
    family: Family = "encoder"
    """encoder: BERT and its kin; decoder: GPT-2 and its kin; encoder-decoder: MASS and its kin (BART, Marian, T5)."""
    teacher: Teacher
    student: Student
    pretraining: Pretraining | None = None
    """Left out, there is no first stage: the student is distilled in fine-tuning only."""
    tasks: Annotated[list[Task], Field(min_length=1)]
    """What the student is fine-tuned on: one student a task."""
    fine_tuning: FineTuning
    control: bool = True
    """Also train the same student without distillation (λ = 0 in both stages): same labelled rows, same steps."""
    arms: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """More students to compare, by name: each is the student but for the keys that it gives anew, such as
    `pretraining.distillation.weight: 0`; of pretraining and fine_tuning, what their training and distillation have."""
    exports: list[Export] | None = None
    """The student for other runtimes, each checked and measured. Left out: int8, for ONNX Runtime (encoders, decoders)
    or CTranslate2 (encoder-decoders, and decoders that the other does not take), where installed; [] is none."""
    seeds: Seeds = Seeds()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    deterministic: bool = True
    """On a GPU: the same bits from the same recipe again, also after a kill; false is faster. On a CPU they are the
    same anyway."""
    precision: Precision = "auto"
    """Of training: bf16 autocast where the processor is faster with it, unless float32 is asked for."""

    @model_validator(mode="after")
    def _check_family(self) -> Self:
        words = FAMILIES[self.family]
        scratch = self.teacher.from_scratch
        if scratch is not None and scratch.architecture not in words.architectures:
            raise ValueError(
                f"teacher.from_scratch.architecture is {scratch.architecture}, but the family is {self.family}; take "
                f"one of {', '.join(words.architectures)}, or another family"
            )
        if self.pretraining is not None and self.pretraining.objective != words.pretraining:
            raise ValueError(
                f"pretraining.objective is {self.pretraining.objective}, but the family {self.family} is pre-trained "
                f"with {words.pretraining}; set it to that, or take another family"
            )
        for task in self.tasks:
            if task.objective not in words.tasks:
                raise ValueError(
                    f"the objective of the task {task.name} is {task.objective}, but the family {self.family} has "
                    f"{', '.join(words.tasks)}; take one of these, or another family"
                )
        their_own = {
            "student.decoder_layers": self.student.decoder_layers,
            "student.teacher_decoder_layers": self.student.teacher_decoder_layers,
            "teacher.from_scratch.decoder_layers": scratch and scratch.decoder_layers,
        }
        for key, value in their_own.items():
            if value is not None and self.family != "encoder-decoder":
                raise ValueError(f"{key} is for the family encoder-decoder; leave it out")
        return self

    @model_validator(mode="after")
    def _check_named_layers(self) -> Self:
        student = self.student
        counts = {"layers": student.layers, "decoder_layers": student.decoder_layers or student.layers}
        for size, layers in student.named_layers.items():
            key = f"student.teacher_{size}"
            if student.initialisation != "teacher":
                raise ValueError(f"{key} is for student.initialisation: teacher; leave it out")
            # Some architectures' first layer is unlike the others (T5's positions, ModernBERT's norm).
            if len(layers) != counts[size] or layers[0] != 0 or layers != sorted(set(layers)):
                raise ValueError(
                    f"{key} is {layers}, and the student has {counts[size]} {size.replace('_', ' ')}: name as many, "
                    "ascending, the first 0, or leave it out"
                )
        return self

    @model_validator(mode="after")
    def _check_exports(self) -> Self:
        known = FAMILIES[self.family].exports
        for export in self.exports or []:
            if export.to not in known:
                raise ValueError(
                    f"exports has {export.to}, which does not take the family {self.family}; take {' or '.join(known)}"
                )
        names = [export.name for export in self.exports or []]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"exports has {twice[0]} twice; leave one out")
        return self

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        if self.teacher.pretraining is not None and self.pretraining is None:
            raise ValueError("teacher.pretraining needs a corpus: add the section pretraining")
        if self.name == "steps":
            raise ValueError("the name 'steps' is taken by the folder that runs share; take another")
        if len(set(self.seeds.fine_tuning)) != len(self.seeds.fine_tuning):
            raise ValueError(f"seeds.fine_tuning needs different seeds; found {self.seeds.fine_tuning}")
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError(f"tasks need different names; found {', '.join(names)}")
        divergence = self.fine_tuning.distillation.divergence
        scores = [task.name for task in self.tasks if task.objective == "regress"]
        if scores and divergence != "forward_kl":
            raise ValueError(
                f"fine_tuning.distillation.divergence is {divergence}, but {scores[0]} has a score, no distribution: "
                "its term is a squared error; leave the key out"
            )
        return self

    @model_validator(mode="after")
    def _check_frozen(self) -> Self:
        """Embeddings that begin random have to learn in the first training that there is."""
        if self.pretraining is None:
            of_student, training = "fine_tuning.training", self.fine_tuning.training
        else:
            of_student, training = "pretraining.training", self.pretraining.training
        of_teacher = self.teacher.pretraining if self.teacher.from_scratch is not None else None
        random = {
            of_student: self.student.initialisation == "random" and training.freeze_embeddings,
            "teacher.pretraining": of_teacher is not None and of_teacher.freeze_embeddings,
        }
        for key, is_frozen in random.items():
            if is_frozen:
                raise ValueError(f"{key}.freeze_embeddings: the embeddings would stay random; leave it out there")
        return self

    @model_validator(mode="after")
    def _check_arms(self) -> Self:
        stores: dict[str, dict[str, Any]] = {}
        self._require_one_encoding(stores, "the student")
        for name, overrides in self.arms.items():
            if name in _TAKEN_ARMS or not _ARM_NAME.fullmatch(name):
                raise ValueError(
                    f"arms: '{name}' cannot be a name; take letters, digits, spaces, '.', '_' and '-', but none of "
                    f"{', '.join(_TAKEN_ARMS)}"
                )
            for key in overrides:
                if key.rpartition(".")[0] not in _OF_AN_ARM:
                    raise ValueError(
                        f"arms.{name}: '{key}' is the same in all arms; give single keys of {', '.join(_OF_AN_ARM)}"
                    )
            try:
                arm = self.overridden(overrides)
            except ValidationError as error:
                found = error.errors()[0]
                place = ".".join(map(str, found["loc"]))
                told = "" if isinstance(found["input"], dict) else f"; found {found['input']!r}"
                raise ValueError(
                    ": ".join(filter(None, (f"arms.{name}", place, found["msg"].removeprefix("Value error, ") + told)))
                ) from error
            arm._require_one_encoding(stores, f"arms.{name}")
        return self

    def _require_one_encoding(self, stores: dict[str, dict[str, Any]], who: str) -> None:
        """Refuse to share a store with those in `stores` that write soft targets otherwise; joins them."""
        stages = {"pretraining": self.pretraining.distillation} if self.pretraining is not None else {}
        if FAMILIES[self.family].work != "classes":
            # Of few classes all are kept, whatever the keys say.
            stages["fine_tuning"] = self.fine_tuning.distillation
        for stage, distillation in stages.items():
            own, store = distillation.encoding_keys, distillation.targets.store
            if own is None or store is None:
                continue
            there = stores.setdefault(f"{stage} {store}", {**own, "who": who})
            for key, value in own.items():
                if value != there[key]:
                    raise ValueError(
                        f"{who}: {stage}.distillation has {key} {value}, {there['who']} {there[key]}, and one store, "
                        f"{store}, cannot hold both; give each a targets.store of its own, or leave them out"
                    )

    def overridden(self, overrides: dict[str, Any]) -> "Recipe":
        """The recipe with other values for some keys (`fine_tuning.training.steps`), and no arms.

        Raises:
            ValidationError: it would be no recipe.
        """
        content = self.model_dump()
        content["arms"] = {}
        for key, value in overrides.items():
            *sections, last = key.split(".")
            place = content
            for section in sections:
                place[section] = place.get(section) or {}
                place = place[section]
            place[last] = value
        return Recipe.model_validate(content)

    @classmethod
    def load(cls, path: str | Path, overrides: list[str] | None = None) -> "Recipe":
        """Read a YAML recipe; `overrides` are `key.path=value` with YAML values.

        Relative local paths in the recipe mean paths beside the recipe file.

        Raises:
            UserError: names the file and the key, what was found and what to do.
        """
        return read_recipe(cls, Path(path), overrides or [])

    def fingerprint(self) -> str:
        """A sha256 over the recipe with its defaults, for the record and to tell runs apart."""
        return fingerprint_of(self.model_dump(mode="json"))


def fingerprint_of(content: Any) -> str:
    """The sha256 of JSON-like content, independent of the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
