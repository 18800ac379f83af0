"""A commented recipe from what was found out: text that is read back and checked before it is written."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from lightpaff.errors import UserError
from lightpaff.files import whole_file
from lightpaff.recipe import Recipe
from lightpaff.start.columns import Table
from lightpaff.start.guessing import FAMILY_OF, Guess
from lightpaff.start.teacher import TeacherFacts

_PARTS = {"train": 0.8, "validation": 0.1, "test": 0.1}
_FEW_ROWS = 5_000
_WITHOUT_CORPUS = ("tag", "answer")
"""Objectives whose rows are no text to pre-train on."""
_UNLABELLED = {
    **dict.fromkeys(("classify", "regress", "tag", "clm"), "only the teacher's term applies there"),
    "translate": "the teacher writes their targets",
}
_LENGTHS = (32, 64, 128, 256, 512)
_SCRATCH_LENGTH = 256
"""Of a teacher that is made here."""
_USUAL_LENGTHS: dict[str, float] = {"answer": 384, "clm": 256, "tag": 64}
_TOKENS_A_MEAN_WORD = 3.5
"""Some 1.3 tokens a word, and long texts are more than twice as long as the mean."""


@dataclass(frozen=True)
class Files:
    """What the user gave: files of one layout."""

    train: Path
    validation: Path | None = None
    test: Path | None = None
    unlabelled: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class NewRecipe:
    """A recipe's text, and one line for each decision in it."""

    text: str
    decisions: list[str]


def make_recipe(
    name: str, files: Files, table: Table, guess: Guess, teacher: TeacherFacts, budget: str = ""
) -> NewRecipe:
    """The recipe for a file, with comments; paths are absolute.

    Args:
        budget: what a student will be looked for in; empty: it has half of the teacher's layers.
    """
    family = FAMILY_OF[guess.objective]
    length, told_length = _length(table, guess, teacher)
    splits, told_splits = _splits(files, guess)
    lines = [
        "# Made by lightpaff new; every key is described by: lightpaff schema",
        # Names and labels come out of the data: a line of them must stay a comment.
        *(f"# - {' '.join(line.split())}" for line in (*guess.why, *teacher.why)),
        f"name: {_flow(name)}",
        *([f"family: {family}"] if family != "encoder" else []),
        *_teacher_lines(teacher, has_corpus=guess.objective not in _WITHOUT_CORPUS),
        *_student_lines(family, teacher, budget),
        *_pretraining_lines(family, files, splits, guess, length),
        "tasks:",
        f"  - name: {_flow(name)}",
        *([f"    objective: {guess.objective}"] if guess.objective != "classify" else []),
        *_source_lines(files, splits, guess),
        *([f"    columns: {_flow(_columns(guess))}"] if _columns(guess) else []),
        *([f"    languages: {_flow(guess.languages)}"] if guess.languages else []),
        f"    max_length: {length}  # in tokens; longer texts are cut, and counted",
        *([f"    max_target_length: {_target_length(table, guess, length)}"] if guess.objective == "translate" else []),
        *([f"    teacher: {_flow(teacher.sources[0])}"] if teacher.is_tuned else []),
        *_fine_tuning_lines(family, table, teacher),
        "seeds: {fine_tuning: [0, 1, 2]}",
    ]
    decisions = [*guess.why, told_splits, told_length, *teacher.why]
    return NewRecipe("\n".join(lines) + "\n", decisions)


def write_recipe(recipe: NewRecipe, path: Path) -> Recipe:
    """Write it where nothing is yet, once it is known to be a recipe.

    Raises:
        UserError: there is a file already.
    """
    require_free(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        temporary.write_text(recipe.text, encoding="utf-8")
        return Recipe.load(temporary)


def require_free(path: Path) -> None:
    """Refuse to write over a file.

    Raises:
        UserError: there is one.
    """
    if path.exists():
        raise UserError(f"{path}: is there already; give another --output")


def _flow(value: object) -> str:
    """YAML on one line; JSON is YAML too."""
    return json.dumps(value, ensure_ascii=False)


def _columns(guess: Guess) -> dict[str, str]:
    group = {"group": guess.group} if guess.group and guess.objective in ("classify", "regress") else {}
    return {**guess.columns, **group}


def _splits(files: Files, guess: Guess) -> tuple[dict[str, str] | None, str]:
    """By which column one file is cut into three; None where the user gave validation rows."""
    if files.validation is not None:
        return None, "split: as you gave the files"
    # A CoNLL file's columns have no names of the user's, and its reader calls the words of a sentence so.
    first = guess.columns.get("text") or guess.columns.get("source") or "tokens"
    by = guess.group or ("context" if guess.objective == "answer" else first)
    what = f"rows of one '{by}' stay together" if guess.group else f"the same '{by}' is never in two parts"
    shares = ", ".join(f"{100 * share:.0f} % {part}" for part, share in _PARTS.items())
    return {"by": by}, f"split: {shares}, by the content of '{by}', so that {what}"


def _source(path: Path, part: str | None, splits: dict[str, str] | None) -> str:
    if part is None or splits is None:
        return _flow({"path": str(path.resolve())})
    split = {"by": splits["by"], "fractions": _PARTS, "take": part}
    return _flow({"path": str(path.resolve()), "split": split})


def _source_lines(files: Files, splits: dict[str, str] | None, guess: Guess) -> list[str]:
    validation, test = files.validation or files.train, files.test or (files.train if splits else None)
    document = ', "document": "file"}' if guess.objective == "clm" else "}"
    found = [f"    train: {_source(files.train, 'train', splits)}"]
    found.append(f"    validation: {_source(validation, 'validation' if splits else None, splits)}")
    if test is not None:
        found.append(f"    test: {_source(test, None if files.test else 'test', splits)}")
    unlabelled = [f"      - {_source(path, None, None)}" for path in files.unlabelled]
    if guess.objective == "clm" and splits is None and files.train.suffixes[:1] == [".txt"]:
        found, unlabelled = ([line.removesuffix("}") + document for line in lines] for lines in (found, unlabelled))
    if files.unlabelled and guess.objective in _UNLABELLED:
        found += [f"    unlabelled:  # {_UNLABELLED[guess.objective]}", *unlabelled]
        found += ["    sequence_distillation: {ratio: 0.5}"] if guess.objective == "translate" else []
    return found


def _teacher_lines(teacher: TeacherFacts, *, has_corpus: bool) -> list[str]:
    lines = ["teacher:"]
    if teacher.sources:
        shown = teacher.sources[0] if len(teacher.sources) == 1 else teacher.sources
        lines.append(f"  source: {_flow(shown)}")
    else:
        lines += [
            f"  from_scratch: {{architecture: mbart, layers: {teacher.layers}, hidden_size: 256, heads: 4,",
            f"                 feed_forward: 1024, vocabulary_size: 8000, max_length: {_SCRATCH_LENGTH}}}",
        ]
    if has_corpus and (teacher.needs_pretraining or not teacher.sources):
        rate = "3.0e-4" if teacher.sources else "1.0e-3"
        steps = 200 if teacher.sources else 2000
        if teacher.sources:
            lines.append("  # It comes without a pre-training head: a short pre-training on your text makes one.")
        lines.append(f"  pretraining: {{steps: {steps}, batch_size: 32, learning_rate: {rate}, dropout: 0.0}}")
    return lines


def _student_lines(family: str, teacher: TeacherFacts, budget: str) -> list[str]:
    told = "half of the teacher's" if teacher.layers else "half of a teacher of 6: set it to half of yours"
    told = f"the largest that was measured within {budget}" if budget else told
    lines = ["student:", f"  layers: {teacher.student_layers}  # {told}; --max-latency and --size find others"]
    if family == "encoder-decoder":
        lines.append("  decoder_layers: 1")
    lines.append("  initialisation: teacher  # evenly spaced layers of it")
    return lines


def _pretraining_lines(
    family: str, files: Files, splits: dict[str, str] | None, guess: Guess, length: int
) -> list[str]:
    text = guess.columns.get("text", guess.columns.get("source"))
    if guess.objective in _WITHOUT_CORPUS or text is None:
        return ["# Stage one is left out: it needs text as a corpus. Add pretraining to distil in both stages."]
    paths = [files.train, *files.unlabelled]
    names = [text] + ([guess.columns["target"]] if guess.objective == "translate" else [])
    languages = {guess.columns[role]: code for role, code in (guess.languages or {}).items()}
    lines = [
        "pretraining:",
        *([f"  objective: {'clm' if family == 'decoder' else 'mssm'}"] if family != "encoder" else []),
    ]
    lines.append("  corpus:  # more text of the same kind helps: add it here")
    for path in paths:
        # Texts without labels may have no targets either.
        for name in names if path == files.train else [text]:
            part = "train" if splits and path == files.train else None
            source = json.loads(_source(path, part, splits)) | {"text": name}
            if languages:
                source["language"] = languages[name]
            lines.append(f"    - {_flow(source)}")
    lines += [
        f"  sequence_length: {length}",
        "  training: {steps: 300, batch_size: 32, learning_rate: 3.0e-4, dropout: 0.0}",
        f"  distillation: {{weight: {0.9 if family == 'encoder' else 0.5}}}",
    ]
    return lines


def _fine_tuning_lines(family: str, table: Table, teacher: TeacherFacts) -> list[str]:
    is_small = table.is_whole and table.rows < _FEW_ROWS
    epochs = (5, 5) if is_small else (3, 3)
    lines = ["fine_tuning:"]
    if not teacher.is_tuned:
        rate = "5.0e-5" if teacher.sources else "1.0e-3"
        lines.append(f"  teacher_training: {{epochs: {epochs[0]}, batch_size: 32, learning_rate: {rate}}}")
    rate = "1.0e-4" if teacher.sources else "2.0e-3"
    lines.append(f"  training: {{epochs: {epochs[1]}, batch_size: 32, learning_rate: {rate}, dropout: 0.0}}")
    softened = ", temperature: 2.0" if family == "encoder" else ""
    lines.append(f"  distillation: {{weight: {0.9 if family == 'encoder' else 0.5}{softened}}}")
    return lines


def _length(table: Table, guess: Guess, teacher: TeacherFacts) -> tuple[int, str]:
    """Enough for nearly all texts, as their words tell."""
    names = [guess.columns[key] for key in ("text", "text_pair", "source") if key in guess.columns]
    words = sum(column.words for name in names if (column := table.column(name)) is not None)
    wanted = _USUAL_LENGTHS.get(guess.objective, _TOKENS_A_MEAN_WORD * words + 8)
    longest = (teacher.longest or _LENGTHS[-1]) if teacher.sources else _SCRATCH_LENGTH
    found = min(_at_least(wanted), longest)
    told = "" if guess.objective in _USUAL_LENGTHS else f", for texts of {words:.0f} words on average"
    return found, f"length: {found} tokens{told}"


def _target_length(table: Table, guess: Guess, most: int) -> int:
    """The same of what is written."""
    column = table.column(guess.columns["target"])
    assert column is not None
    return min(_at_least(_TOKENS_A_MEAN_WORD * column.words + 8), most)


def _at_least(wanted: float) -> int:
    return next((length for length in _LENGTHS if length >= wanted), _LENGTHS[-1])
