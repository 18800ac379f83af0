"""Exports as functions of text, in a process that needs neither torch nor transformers.

from lightpaff.deployment.loading import load
classify = load("my-export")
print(classify("What a lovely film."))
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from lightpaff.deployment.card import ExportCard, Kind
from lightpaff.deployment.classifier import Classifier, Scorer
from lightpaff.deployment.runner import open_export
from lightpaff.errors import UserError, one_line

if TYPE_CHECKING:
    from lightpaff.deployment.extractor import Extractor
    from lightpaff.deployment.tagger import Tagger
    from lightpaff.deployment.text_loading import Continuer, Writer

TOKENIZER = "tokenizer.json"


def load(directory: str | Path, threads: int = 0) -> "Classifier | Scorer | Tagger | Extractor | Continuer | Writer":
    """Open a directory that `lightpaff export` wrote, for what its model answers.

    Args:
        directory: of an export to onnx, openvino or ctranslate2.
        threads: that work on one call; 0 is all cores.

    Raises:
        UserError: it is no export, one to transformers, its files cannot be read, or its runtime is not installed.
    """
    folder = Path(directory)
    card = ExportCard.read(folder)
    if card.format == "transformers":
        raise UserError(
            f"{folder}: is an export to transformers; open it with transformers, or export to another format"
        )
    try:
        return _LOADERS[card.kind](card, folder, threads)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{folder}: needs {card.format}, and {error.name} is not installed; install lightpaff[export]"
        ) from error


def _load_classifier(card: ExportCard, directory: Path, threads: int) -> Classifier:
    runner = open_export(card, directory, threads)
    return Classifier(runner, _open_tokenizer(directory), card)


def _load_scorer(card: ExportCard, directory: Path, threads: int) -> Scorer:
    runner = open_export(card, directory, threads)
    return Scorer(runner, _open_tokenizer(directory), card)


def _load_tagger(card: ExportCard, directory: Path, threads: int) -> "Tagger":
    from lightpaff.deployment.tagger import Tagger

    return Tagger(open_export(card, directory, threads), _open_tokenizer(directory), card)


def _load_extractor(card: ExportCard, directory: Path, threads: int) -> "Extractor":
    from lightpaff.deployment.extractor import Extractor

    return Extractor(open_export(card, directory, threads), _open_tokenizer(directory), card)


def _load_continuer(card: ExportCard, directory: Path, threads: int) -> "Continuer":
    from lightpaff.deployment.text_loading import load_continuer

    return load_continuer(card, directory, threads)


def _load_writer(card: ExportCard, directory: Path, threads: int) -> "Writer":
    from lightpaff.deployment.text_loading import load_writer

    return load_writer(card, directory, threads)


_LOADERS: dict[
    Kind, Callable[[ExportCard, Path, int], "Classifier | Scorer | Tagger | Extractor | Continuer | Writer"]
] = {
    "classes": _load_classifier,
    "scores": _load_scorer,
    "token_classes": _load_tagger,
    "spans": _load_extractor,
    "next_tokens": _load_continuer,
    "target_tokens": _load_writer,
}


def _open_tokenizer(directory: Path) -> Tokenizer:
    path = directory / TOKENIZER
    try:
        tokenizer = Tokenizer.from_file(str(path))
    # The tokenizers library raises bare Exception.
    except Exception as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)}); export the model anew") from error
    tokenizer.no_padding()
    return tokenizer
