"""Exports as functions of text, in a process that needs neither torch nor transformers.

from lightpaff.deployment.loading import load
classify = load("my-export")
print(classify("What a lovely film."))
"""

from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from lightpaff.deployment.card import ExportCard, Kind
from lightpaff.deployment.pieces import PIECES, PieceTokenizer
from lightpaff.deployment.runner import find_in_room, open_export
from lightpaff.errors import UserError, one_line

if TYPE_CHECKING:
    from lightpaff.deployment.classifier import Classifier, Scorer
    from lightpaff.deployment.extractor import Extractor
    from lightpaff.deployment.tagger import Tagger
    from lightpaff.deployment.text_loading import Continuer, Writer


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
        opened: Classifier | Scorer | Tagger | Extractor | Continuer | Writer = find_in_room(_CLASSES[card.kind])(
            open_export(card, folder, threads), _open_tokenizer(card, folder), card
        )
    except ModuleNotFoundError as error:
        raise UserError(
            f"{folder}: needs {card.format}, and {error.name} is not installed; install lightpaff[export]"
        ) from error
    return opened


_CLASSES: dict[Kind, str] = {
    "classes": "classifier.Classifier",
    "scores": "classifier.Scorer",
    "token_classes": "tagger.Tagger",
    "spans": "extractor.Extractor",
    "next_tokens": "text_loading.Continuer",
    "target_tokens": "text_loading.Writer",
}
"""What answers, by what it answers: `module.Class` of this room."""


def _open_tokenizer(card: ExportCard, directory: Path) -> Tokenizer | PieceTokenizer:
    if card.tokenizer == PIECES:
        return PieceTokenizer(directory)
    path = directory / card.tokenizer
    try:
        tokenizer = Tokenizer.from_file(str(path))
    # The tokenizers library raises bare Exception.
    except Exception as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)}); export the model anew") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
