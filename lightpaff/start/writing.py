"""A commented recipe from what was found out: text that is read back and checked before it is written."""

import json
from dataclasses import dataclass
from pathlib import Path

from lightpaff.errors import UserError
from lightpaff.evaluation.tags import mark_entities
from lightpaff.files import whole_file
from lightpaff.recipe import Recipe
from lightpaff.start.columns import Column, Table
from lightpaff.start.guessing import FAMILY_OF, Guess
from lightpaff.start.parts import WITH_LABELS, Files, Parts, source_of
from lightpaff.start.teacher import TeacherFacts

_FEW_ROWS = 5_000
_RATES, _RATES_FROM_SCRATCH = ("5.0e-5", "1.0e-4", 0), ("1.0e-3", "2.0e-3")
_RATES_OF_TAGS = ("1.5e-4", "2.0e-4", 3)
"""Of the teacher and of the student, and the student's epochs more: few words are entities, and at the rates of classes
neither is done (docs/results.md, what new writes)."""
_WITHOUT_CORPUS = ("tag", "answer")
"""Objectives whose rows are no text to pre-train on."""
UNLABELLED: dict[str, str] = {
    **dict.fromkeys(("classify", "regress", "tag", "clm"), "only the teacher's term applies there"),
    "translate": "the teacher writes their targets",
}
"""What unlabelled rows are for, by the objectives that take some."""
_LENGTHS = (32, 64, 128, 256, 512)
_SCRATCH_LENGTH = 256
"""Of a teacher that is made here."""
_USUAL_LENGTHS: dict[str, float] = {"answer": 384, "clm": 256, "tag": 64}
_TOKENS_A_WORD, _TOKENS_A_LETTER = 1.3, 1.0
"""A letter of a script that puts no spaces between words is a token, nearly always."""
_LONG = 2.7
"""Long texts are more than twice as long as the mean."""


@dataclass(frozen=True)
class NewRecipe:
    """A recipe's text, and one line for each decision in it."""

    text: str
    decisions: list[str]


def make_recipe(
    name: str, files: Files, table: Table, guess: Guess, parts: Parts, teacher: TeacherFacts, budget: str = ""
) -> NewRecipe:
    """The recipe for a file, with comments; paths are absolute.

    Args:
        name: of recipe and task.
        files, table, guess, parts, teacher: what the user has, and what was found out about it; the guess's labels
            are those that the recipe names.
        budget: what a student will be looked for in; empty: it has half of the teacher's layers.
    """
    family = FAMILY_OF[guess.objective]
    length, told_length = _length(table, guess, teacher)
    columns = guess.columns | ({"group": parts.group} if parts.group and guess.objective in WITH_LABELS else {})
    lines = [
        "# Made by lightpaff new; every key is described by: lightpaff schema",
        # Names and labels come out of the data: a line of them must stay a comment.
        *(f"# - {' '.join(line.split())}" for line in (*guess.why, *parts.why, *teacher.why)),
        f"name: {_flow(name)}",
        *([f"family: {family}"] if family != "encoder" else []),
        *_teacher_lines(teacher, has_corpus=guess.objective not in _WITHOUT_CORPUS),
        *_student_lines(family, teacher, budget),
        *_pretraining_lines(family, files, parts, guess, length),
        "tasks:",
        f"  - name: {_flow(name)}",
        *([f"    objective: {guess.objective}"] if guess.objective != "classify" else []),
        *_source_lines(files, parts, guess),
        *([f"    columns: {_flow(columns)}"] if columns else []),
        *([f"    labels: {_flow(guess.labels)}"] if guess.labels else []),
        *([f"    languages: {_flow(guess.languages)}"] if guess.languages else []),
        *_metric_lines(table, guess),
        f"    max_length: {length}  # in tokens; longer texts are cut, and counted",
        *([f"    max_target_length: {_target_length(table, guess, length)}"] if guess.objective == "translate" else []),
        *([f"    teacher: {_flow(teacher.sources[0])}"] if teacher.is_tuned else []),
        *_fine_tuning_lines(family, guess, table, teacher),
        "seeds: {fine_tuning: [0, 1, 2]}",
    ]
    decisions = [*guess.why, *parts.why, told_length, *teacher.why]
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


def _source_lines(files: Files, parts: Parts, guess: Guess) -> list[str]:
    # Cut by its lines, a text file is no document any more.
    is_document = guess.objective == "clm" and files.validation is not None and files.train.suffixes[:1] == [".txt"]
    document = {"document": "file"} if is_document else {}
    found = [f"    {part}: {_flow(source | document)}" for part, source in parts.sources.items()]
    if files.unlabelled:
        found.append(f"    unlabelled:  # {UNLABELLED[guess.objective]}")
        found += [f"      - {_flow(source_of(path) | document)}" for path in files.unlabelled]
        found += ["    sequence_distillation: {ratio: 0.5}"] if guess.objective == "translate" else []
    return found


def _metric_lines(table: Table, guess: Guess) -> list[str]:
    tags = table.column(guess.columns.get("label", "tags")) if guess.objective == "tag" else None
    if tags is None or mark_entities(tags.few_items):
        return []
    return ["    metrics: [accuracy]  # of words: the tags mark no entities, as B-place and O do"]


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
            comes = "It comes" if teacher.layers else "Nobody looked whether it comes"
            lines.append(f"  # {comes} without a pre-training head: a short pre-training on your text makes one.")
        lines.append(f"  pretraining: {{steps: {steps}, batch_size: 32, learning_rate: {rate}, dropout: 0.0}}")
    return lines


def _student_lines(family: str, teacher: TeacherFacts, budget: str) -> list[str]:
    told = "half of the teacher's" if teacher.layers else "half of a teacher of 6: set it to half of yours"
    told = f"the largest that was measured within {budget}" if budget else told
    lines = ["student:", f"  layers: {teacher.student_layers}  # {told}; --max-latency and --size find others"]
    if family == "encoder-decoder":
        lines.append("  decoder_layers: 1")
    lines.append("  initialisation: teacher  # teacher: its evenly spaced layers; teacher_layers names others")
    return lines


def _pretraining_lines(family: str, files: Files, parts: Parts, guess: Guess, length: int) -> list[str]:
    text = guess.columns.get("text", guess.columns.get("source"))
    if guess.objective in _WITHOUT_CORPUS or text is None:
        return ["# Stage one is left out: it needs text as a corpus. Add pretraining to distil in both stages."]
    names = [text] + ([guess.columns["target"]] if guess.objective == "translate" else [])
    languages = {guess.columns[role]: code for role, code in (guess.languages or {}).items()}
    lines = [
        "pretraining:",
        *([f"  objective: {'clm' if family == 'decoder' else 'mssm'}"] if family != "encoder" else []),
    ]
    lines.append("  corpus:  # more text of the same kind helps: add it here")
    # Texts without labels may have no targets either.
    sources = [(parts.sources["train"], name) for name in names]
    sources += [(source_of(path), text) for path in files.unlabelled]
    for source, name in sources:
        language = {"language": languages[name]} if languages else {}
        lines.append(f"    - {_flow({**source, 'text': name, **language})}")
    lines += [
        f"  sequence_length: {length}",
        "  training: {steps: 300, batch_size: 32, learning_rate: 3.0e-4, dropout: 0.0}",
        f"  distillation: {{weight: {0.9 if family == 'encoder' else 0.5}}}",
    ]
    return lines


def _fine_tuning_lines(family: str, guess: Guess, table: Table, teacher: TeacherFacts) -> list[str]:
    epochs = 5 if table.rows < _FEW_ROWS else 3
    teacher_rate, student_rate, more_epochs = _RATES_OF_TAGS if guess.objective == "tag" else _RATES
    if not teacher.sources:
        teacher_rate, student_rate = _RATES_FROM_SCRATCH
    lines = ["fine_tuning:"]
    if not teacher.is_tuned:
        lines.append(f"  teacher_training: {{epochs: {epochs}, batch_size: 32, learning_rate: {teacher_rate}}}")
    told = f"epochs: {epochs + more_epochs}, batch_size: 32, learning_rate: {student_rate}, dropout: 0.0"
    lines.append(f"  training: {{{told}}}")
    softened = ", temperature: 2.0" if family == "encoder" else ""
    lines.append(f"  distillation: {{weight: {0.9 if family == 'encoder' else 0.5}{softened}}}")
    return lines


def _length(table: Table, guess: Guess, teacher: TeacherFacts) -> tuple[int, str]:
    """Enough for nearly all texts, as their words tell."""
    names = [guess.columns[key] for key in ("text", "text_pair", "source") if key in guess.columns]
    columns = [column for name in names if (column := table.column(name)) is not None]
    words, letters = (sum(numbers) for numbers in ([c.words for c in columns], [c.letters for c in columns]))
    wanted = _USUAL_LENGTHS.get(guess.objective, sum(map(_long_text, columns)) + 8)
    longest = (teacher.longest or _LENGTHS[-1]) if teacher.sources else _SCRATCH_LENGTH
    found = min(_at_least(wanted), longest)
    what = "words" if letters < words / 2 else "characters"
    told = "" if guess.objective in _USUAL_LENGTHS else f", for texts of {words:.0f} {what} on average"
    return found, f"length: {found} tokens{told}"


def _target_length(table: Table, guess: Guess, most: int) -> int:
    """The same of what is written."""
    column = table.column(guess.columns["target"])
    assert column is not None
    return min(_at_least(_long_text(column) + 8), most)


def _long_text(column: Column) -> float:
    """The tokens of one."""
    return _LONG * (_TOKENS_A_WORD * (column.words - column.letters) + _TOKENS_A_LETTER * column.letters)


def _at_least(wanted: float) -> int:
    return next((length for length in _LENGTHS if length >= wanted), _LENGTHS[-1])
