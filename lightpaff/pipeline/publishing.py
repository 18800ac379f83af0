"""`lightpaff push` and `lightpaff pull`: an export or a student to the Hub with its card, and back."""

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from lightpaff.deployment.card import CARD, ExportCard
from lightpaff.errors import UserError, one_line
from lightpaff.recipe import Recipe
from lightpaff.report.metrics import METRICS
from lightpaff.report.rows import ReportData, report_from_json

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_NEVER = (
    "pytorch_model*.bin",
    "training_args.bin",
    "optimizer.bin",
    "*.pt",
    "*.pth",
    "*.pkl",
    "*.pickle",
    "*.ckpt",
    "*.py",
)
"""What could run code when it is read."""
_LEVELS_UP = 3


def push(directory: Path, repository: str, licence: str | None = None, *, private: bool = False) -> str:
    """Upload an export or a student in one commit, with a card whose metadata the Hub reads; the address.

    Args:
        directory: of the export, or the student of a run.
        repository: OWNER/NAME, made if it is not there.
        licence: such as apache-2.0; left out, that of the teacher, where its model card is on this machine.
        private: for a repository that is made.

    Raises:
        UserError: it is neither, the licence is not known, or the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    _require_id(repository)
    readme = model_card(directory, licence)
    files = [path for path in sorted(directory.rglob("*")) if path.is_file() and _belongs(path.relative_to(directory))]
    operations = [CommitOperationAdd("README.md", readme.encode())]
    operations += [CommitOperationAdd(path.relative_to(directory).as_posix(), str(path)) for path in files]
    try:
        api = HfApi()
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.create_commit(repository, operations, commit_message="Upload by lightpaff")
    except Exception as error:  # errors of the Hub and of its HTTP library alike
        remedy = "log in with: hf auth login, and check the name and your rights"
        raise UserError(f"{repository}: the Hub does not take it ({one_line(error)}); {remedy}") from error
    return str(url)


def pull(repository: str, output: Path, revision: str | None = None) -> Path:
    """Download an export or a student, whole or not at all; files that could run code are left out.

    Args:
        repository: OWNER/NAME.
        output: the directory; it is not there yet, or empty.
        revision: a branch, tag or commit; left out, the newest.

    Raises:
        UserError: the Hub does not give it, it is neither, or the output is a file or a directory that is not empty.
    """
    from huggingface_hub import snapshot_download

    _require_id(repository)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: is {'not empty' if output.is_dir() else 'a file'}; give another --output")
    # "." has no name that could be taken over.
    place = output.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.", suffix=".part") as folder:
        got = Path(folder) / place.name
        try:
            snapshot_download(repository, revision=revision, local_dir=got, ignore_patterns=list(_NEVER))
        except Exception as error:  # as above
            raise UserError(f"{repository}: cannot be had from the Hub ({one_line(error)}); check the name") from error
        _require_model(got)
        # What the Hub's library notes of its downloads.
        shutil.rmtree(got / ".cache", ignore_errors=True)
        got.replace(place)
    return output


def model_card(directory: Path, licence: str | None) -> str:
    """The README.md with metadata: the results, base model, licence and data sets of the run that it lies in.

    Raises:
        UserError: the directory is neither an export nor a student, its card or the results of its run cannot be read,
            or the licence is not known.
    """
    _require_model(directory)
    readme = directory / "README.md"
    new = f"\n# {directory.name}\n\nDistilled by lightpaff.\n"
    metadata, body = _split(readme) if readme.exists() else ({}, new)
    run = next((place for place in [*directory.resolve().parents][:_LEVELS_UP] if (place / "run.json").exists()), None)
    metadata = {"library_name": "transformers", "tags": ["lightpaff", "distillation"], **metadata}
    if run is not None:
        recipe, data = _recipe_and_results(run)
        metadata |= _from_recipe(recipe)
        metadata["model-index"] = [{"name": data.name, "results": _results(directory, data)}]
        licence = licence or _licence_of_teacher(recipe)
    if licence is None:
        raise UserError(f"{directory}: the teacher's licence is not known here; give --licence, such as apache-2.0")
    metadata["license"] = licence
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---\n{body}"


def _belongs(path: Path) -> bool:
    """Neither the card, which is made anew, nor hidden, nor what could run code."""
    is_hidden = any(part.startswith(".") for part in path.parts)
    return path.name != "README.md" and not is_hidden and not any(path.match(pattern) for pattern in _NEVER)


def _require_id(repository: str) -> None:
    if not _HUB_ID.fullmatch(repository):
        raise UserError(f"{repository}: is no name on the Hub; write OWNER/NAME")


def _require_model(directory: Path) -> None:
    if (directory / CARD).exists():
        ExportCard.read(directory)
    elif not (directory / "config.json").exists():
        raise UserError(f"{directory}: holds neither an export ({CARD}) nor a student (config.json)")


def _recipe_and_results(run: Path) -> tuple[Recipe, ReportData]:
    results = run / "report" / "report_data.json"
    try:
        data = report_from_json(json.loads(results.read_text()), str(results))
        return Recipe.model_validate(json.loads((run / "run.json").read_text())["recipe"]), data
    except FileNotFoundError as error:
        raise UserError(f"{results}: is missing; run the recipe to its end, which writes it") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run}: its recipe or results cannot be read ({one_line(error)}); run it again") from error


def _split(readme: Path) -> tuple[dict[str, Any], str]:
    """The block that the Hub reads, and the rest."""
    try:
        text = readme.read_text(encoding="utf-8")
        parts = text.split("---\n", 2)
        if len(parts) < 3 or parts[0].strip():
            return {}, "\n" + text
        metadata = yaml.safe_load(parts[1]) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{readme}: cannot be read ({one_line(error)}); correct what is between its ---") from error
    if not isinstance(metadata, dict):
        raise UserError(f"{readme}: between its --- are no keys with values; correct it")
    return metadata, parts[2]


def _sources_of(recipe: Recipe) -> list[str]:
    named = next((task.teacher for task in recipe.tasks if task.teacher), None) or recipe.teacher.source
    return [] if named is None else [named] if isinstance(named, str) else named


def _from_recipe(recipe: Recipe) -> dict[str, Any]:
    """Base model and data sets, those that the Hub has."""
    bases = [source.removeprefix("hub:") for source in _sources_of(recipe)]
    bases = [base for base in bases if _HUB_ID.fullmatch(base) and not Path(base).exists()]
    paths = [source.path for task in recipe.tasks for source in (*task.train, *task.unlabelled)]
    paths += [source.path for source in recipe.pretraining.corpus] if recipe.pretraining else []
    data = dict.fromkeys(path.removeprefix("hub:") for path in paths if path.startswith("hub:"))
    base = {"base_model": bases[0], "base_model_relation": "finetune"} if bases else {}
    return {**base, **({"datasets": list(data)} if data else {})}


def _licence_of_teacher(recipe: Recipe) -> str | None:
    """Where the teacher is a directory with a model card."""
    for source in _sources_of(recipe):
        readme = Path(source) / "README.md"
        if readme.is_file():
            found = _split(readme)[0].get("license")
            if isinstance(found, str):
                return found
    return None


def _results(directory: Path, data: ReportData) -> list[dict[str, Any]]:
    """What was measured on the reported split: of an export its own score, of a student the mean over its seeds."""
    found = []
    # RUN/student/TASK and RUN/exports/TASK/NAME, where there are several.
    own = [task for task in data.tasks if len(data.tasks) == 1 or task.name in directory.resolve().parts[-2:]]
    for task in own:
        rows = [
            one for one in data.exports if (one.name, one.task, one.split) == (directory.name, task.name, task.split)
        ]
        values = [(one.metric, one.export) for one in rows]
        if not (directory / CARD).exists():
            students = [
                row for row in data.rows if (row.arm, row.task, row.split) == ("student", task.name, task.split)
            ]
            values = list({row.metric: row.value for row in students}.items())
        metrics = [{"type": name, "name": METRICS[name].name, "value": round(value, 4)} for name, value in values]
        if metrics:
            dataset = {"type": task.name, "name": task.name, "split": task.split}
            found.append({"task": {"type": task.objective}, "dataset": dataset, "metrics": metrics})
    return found
