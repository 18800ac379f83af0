"""A model of some shape with random weights, exported: as fast as a trained one.

How long a model takes does not depend on the values of its weights, with one exception that is dealt with here: an
encoder-decoder may end its text early. Random ones made here never do.
"""

import shutil
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.contenders import Contender, find_contenders
from lightpaff.deployment.exporters import export_model
from lightpaff.deployment.shape_plan import MeasuringPlan, classes_of
from lightpaff.models.architecture import TARGET_TOKENS
from lightpaff.models.initialisation import create_student
from lightpaff.models.opening import quiet_transformers
from lightpaff.models.shapes import longest_input
from lightpaff.runtimes import RUNTIMES, Work


def build_contender(config: PreTrainedConfig, plan: MeasuringPlan, folder: Path, name: str) -> Contender:
    """Build a model of the config with random weights and export it.

    Args:
        config: left as it is.
        plan: says what to export to.
        folder: an empty one, for the model and its export.
        name: of the contender.

    Raises:
        UserError: the architecture cannot be exported.
    """
    model, export = folder / "model", folder / "export"
    _save_random_model(config, plan.work, model)
    directory = _export(model, export, plan, longest_input(config))
    return open_contender(directory, plan, name)


def open_contender(directory: Path, plan: MeasuringPlan, name: str) -> Contender:
    """The export in a directory (for PyTorch, the model) as it takes part, with the plan's threads and precision."""
    [contender], _ = find_contenders(
        {name: directory},
        [plan.runtime],
        threads=plan.threads,
        pytorch=("bf16" if plan.quantisation == "bf16" else "none",),
    )
    return contender


def _save_random_model(config: PreTrainedConfig, work: Work, destination: Path) -> None:
    config = type(config).from_dict(config.to_dict())
    tokenizer = _make_tokenizer_for(config, work)
    classes = classes_of(work, config)
    model = create_student(config, work, classes, initialisation="random", teacher_path=None, seed=0, attention="sdpa")
    if work == TARGET_TOKENS:
        _never_end(model, config.eos_token_id)
    with quiet_transformers():
        model.save_pretrained(destination)
    tokenizer.save_pretrained(destination)


def _make_tokenizer_for(config: PreTrainedConfig, work: Work) -> PreTrainedTokenizerFast:
    """A tokenizer with a word for every row of the table; the config of a model that writes gets its special tokens.

    Runtimes are given token ids: the words only have to be there.
    """
    if work == "classes":
        return make_tokenizer(config.vocab_size)
    config.eos_token_id, config.pad_token_id, first = _special_ids(config)
    if work == TARGET_TOKENS:
        config.decoder_start_token_id = first
    return make_tokenizer(config.vocab_size, config.eos_token_id, config.pad_token_id)


def make_tokenizer(rows: int, end: int = 1, padding: int = 0) -> PreTrainedTokenizerFast:
    """A tokenizer of `rows` words without a meaning, good for every family."""
    names = {end: "<end>", padding: "<padding>"}
    words = {names.get(id_, f"word{id_}"): id_ for id_ in range(rows)}
    backend = Tokenizer(WordLevel(words, unk_token="<padding>"))
    backend.add_special_tokens([AddedToken(name, special=True) for name in names.values()])
    roles = {"pad_token": "<padding>", "unk_token": "<padding>", "eos_token": "<end>", "bos_token": "<end>"}
    roles |= {"cls_token": "<end>", "sep_token": "<end>", "mask_token": "<padding>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles)


def _special_ids(config: PreTrainedConfig) -> tuple[int, int, int]:
    """The end of a text, the padding (another token), and what a decoder beside an encoder begins with."""
    end, padding = config.eos_token_id, config.pad_token_id
    end = end[0] if isinstance(end, list) else end
    last = config.vocab_size - 1
    end = end if end is not None and 0 <= end <= last else last
    if padding is None or not 0 <= padding <= last or padding == end:
        padding = 0 if end != 0 else 1
    first = getattr(config, "decoder_start_token_id", None)
    return int(end), int(padding), int(padding if first is None else first)


def _never_end(model: PreTrainedModel, end: int) -> None:
    """Keep the end token from being written: a row of zeros gives it a middling logit, far from a beam's first ones."""
    with torch.no_grad():
        for table in (model.get_input_embeddings(), model.get_output_embeddings()):
            table.weight[end] = 0


def _export(model: Path, destination: Path, plan: MeasuringPlan, longest: int | None) -> Path:
    """The directory to measure: for PyTorch, the model's own."""
    if plan.runtime == "pytorch":
        return model
    format_ = RUNTIMES[plan.runtime].format
    destination.mkdir()
    export_model(format_, model, destination, plan.quantisation, decoder_start=None)
    shutil.copy(model / "tokenizer.json", destination)
    ExportCard(
        format=format_,
        quantisation=plan.quantisation,
        kind=plan.work,
        max_length=plan.length,
        longest_input=longest,
        source_sha256="random weights",
    ).write(destination)
    return destination
