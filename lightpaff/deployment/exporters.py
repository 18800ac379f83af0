"""Every format by its word: what exports to it, and what speaks against that before there is a model.

Imports a format's packages only when they are asked for.
"""

from pathlib import Path

from transformers import PreTrainedConfig

from lightpaff.deployment.runner import find_in_room
from lightpaff.runtimes import RUNTIMES, Format, Quantisation, runtime_of


def export_model(
    format_: Format, model_directory: Path, destination: Path, quantisation: Quantisation, decoder_start: str | None
) -> None:
    """Write a model for another runtime.

    Args:
        format_: whose files are written.
        model_directory: as `save_pretrained` writes it, with the tokenizer.
        destination: a directory that is there.
        quantisation: of the weights.
        decoder_start: see `export_ctranslate2`, the only format that keeps it.

    Raises:
        UserError: the format does not take the model.
    """
    options = {"decoder_start": decoder_start} if format_ == "ctranslate2" else {}
    find_in_room(RUNTIMES[runtime_of(format_)].exporter)(model_directory, destination, quantisation, **options)


def refusal_of(format_: Format, config: PreTrainedConfig) -> str:
    """Why a model of the config cannot be exported; empty where nothing speaks against it.

    The packages that the export needs are installed.
    """
    refusal = RUNTIMES[runtime_of(format_)].refusal
    return str(find_in_room(refusal)(config)) if refusal else ""
