"""How models are opened: a model directory becomes a headed model, and what such a directory holds."""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from lightpaff.errors import UserError, one_line
from lightpaff.models.architecture import CLASSES, SPANS, TOKEN_CLASSES, Head
from lightpaff.models.families import architecture_of, attention_of, check_model_type, head_of, last_layer_of
from lightpaff.models.headed import HeadedModel
from lightpaff.models.weights import read_tensors, require_plain_weights, tensor_names

NAMED_CLASSES = (CLASSES, TOKEN_CLASSES)
"""The heads whose classes have names in the config."""

_FINETUNED = {"ForTokenClassification": TOKEN_CLASSES, "ForQuestionAnswering": SPANS}
_START_AND_END = 2

# Buffers that older versions of transformers stored, and that hold nothing learnt.
_HARMLESS = re.compile(
    r"(.*\.)?(position_ids|token_type_ids|version|masked_bias|inv_freq|final_logits_bias|embed_positions\.weights)"
    r"|(.*\.)?(attn|attention)\.bias"
)
_POOLER = re.compile(r"(.*\.)?pooler\..*")


def split_model(model: PreTrainedModel, head: str, classes: int) -> HeadedModel:
    """See a transformers model with the given head as trunk, pre-head and projection.

    Raises:
        UserError: the architecture is not supported, or pools all tokens where one is needed.
    """
    return HeadedModel(model, head_of(model.config, head).layout, classes, last_layer_of(model))


def open_headed(
    path: Path,
    head: str,
    classes: int,
    *,
    device: torch.device | str,
    attention: str,
    dropout: float | None = None,
    labels: list[str] | None = None,
    seed: int = 0,
) -> HeadedModel:
    """Open a model directory in float32, in evaluation mode, with a head.

    Args:
        path: a directory written by `save_pretrained`, with safetensors weights.
        head: one of the architecture's: `masked_tokens`, `classes`, `next_tokens` or `target_tokens`.
        classes: V: the vocabulary's size, or for `classes` their number, where 1 means regression.
        device: where the model goes.
        attention: transformers' `attn_implementation`: `eager` or `sdpa`.
        dropout: every dropout probability; None leaves the model's own.
        labels: the names of the classes in order, kept in the config.
        seed: of the head's parameters that the directory does not hold.

    Raises:
        UserError: the directory is no such model, its trunk is incomplete or its head has other classes.
    """
    config = read_config(path)
    if head in NAMED_CLASSES and not lacks_head(path, head):
        _check_stored_classes(path, config, classes, labels)
    configure_head(config, head, classes, labels)
    set_dropout(config, dropout)
    known = head_of(config, head)
    with quiet_transformers(), seeded(seed):
        model, report = _load(path, known, config, attention)
    _take_bias_of_another_name(model, set(report["missing_keys"]))
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(known.parameters))
    if missing:
        raise UserError(
            f"{path}: lacks {len(missing)} tensors of a {config.model_type}, such as {missing[0]}; "
            "its config.json and its weights do not belong together, or it was saved incompletely"
        )
    if unforeseen := _unforeseen(model, report["unexpected_keys"]):
        raise UserError(
            f"{path}: holds {len(unforeseen)} tensors that its config.json does not foresee, such as {unforeseen[0]}: "
            "without them it is another model; correct config.json, or take a model of a plain architecture"
        )
    _freeze_what_nobody_reads(model)
    model.to(device)
    return split_model(model, head, classes)


def _freeze_what_nobody_reads(model: PreTrainedModel) -> None:
    """What is never stored is never trained (Marian's sinusoids, which from_pretrained forgets to freeze). Nor is what
    another parameter stands for, whose gradient ranks would wait for: the bias of a head whose output layer has one of
    its own, and the embeddings that an encoder-decoder's sides share, where both have others."""
    tensors = dict(model.named_parameters())
    ours = [name for name in tensors if name.endswith(("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"))]
    replaced = [name.replace(".decoder.bias", ".bias") for name in tensors if name.endswith(".decoder.bias")]
    shared = [name for name in tensors if name.endswith("shared.weight")] if len(ours) == 2 else []
    projection = getattr(model.get_output_embeddings(), "weight", None)
    for name in {*(model._keys_to_ignore_on_save or ()), *replaced, *shared} & tensors.keys():
        if tensors[name] is not projection:
            tensors[name].requires_grad_(False)


def _take_bias_of_another_name(model: PreTrainedModel, missing: set[str]) -> None:
    """An output layer of its own has a bias of its own in transformers 5, which version 4 kept as the head's alone."""
    tensors = dict(model.named_parameters())
    for name in missing:
        twin = name.replace(".decoder.bias", ".bias")
        if name.endswith(".decoder.bias") and twin in tensors and twin not in missing:
            tensors[name].data.copy_(tensors[twin].data)


def finetuned_head(config: PreTrainedConfig) -> str:
    """For what an encoder was fine-tuned, as its config says; one that does not say classifies."""
    return _says_head(config) or CLASSES


def _says_head(config: PreTrainedConfig) -> str | None:
    name = (config.architectures or [""])[0]
    return next((head for ending, head in _FINETUNED.items() if name.endswith(ending)), None)


def lacks_head(path: Path, head: str) -> bool:
    """Whether the directory's weights are without (a part of) this head. Reads tensor names only.

    A projection that is tied to the embeddings is not stored, and is not missed.

    Raises:
        UserError: the directory holds no readable safetensors weights or another architecture.
    """
    config = read_config(path)
    known = architecture_of(config).heads[head]
    names = tensor_names(path)
    says_so = head in NAMED_CLASSES and _says_head(config) == head
    if known.foreign is not None and not says_so and any(name.startswith(known.foreign) for name in names):
        return True
    if known.predicts_tokens and _is_said_untied(path, config) and not _projection_names(known) & set(names):
        return True
    return not all(any(name.startswith(prefix) for name in names) for prefix in known.stored)


def read_config(path: Path) -> PreTrainedConfig:
    """The config of a model directory of a supported architecture, without the network.

    Raises:
        UserError: there is none, it cannot be read, or the architecture is not supported.
    """
    file = path / "config.json"
    if not file.is_file():
        raise UserError(f"{path}: holds no config.json; give the directory of a transformers model")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        model_type = content.get("model_type")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file}: is not a JSON object ({error}); fetch or make the model anew") from error
    check_model_type(model_type, str(path))
    try:
        return AutoConfig.from_pretrained(path, local_files_only=True)
    # The config's own validation raises its own errors: whatever they are, the file is at fault.
    except Exception as error:
        raise UserError(
            f"{file}: is not a valid {model_type} config ({one_line(error)}); correct or fetch it anew"
        ) from error


def check_directory(path: Path, head: str) -> None:
    """Open a directory with a head and leave it again: what is refused is refused before anything is trained.

    Raises:
        UserError: as `open_headed`.
    """
    config = read_config(path)
    classes = len(config.id2label) if head in NAMED_CLASSES else config.vocab_size
    open_headed(path, head, classes, device="cpu", attention="eager")


def configure_head(config: PreTrainedConfig, head: str, classes: int, labels: list[str] | None = None) -> None:
    """Write the classes of the head into the config; a head that predicts tokens has its vocab_size."""
    if head == SPANS:
        config.num_labels = _START_AND_END
    if head not in NAMED_CLASSES:
        return
    assert labels is None or len(labels) == classes
    config.num_labels = classes
    if head == CLASSES:
        config.problem_type = "regression" if classes == 1 else "single_label_classification"
    if labels is not None:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: id_ for id_, label in enumerate(labels)}


def set_dropout(config: PreTrainedConfig, dropout: float | None) -> None:
    """Set every dropout probability of the config; None leaves them. Whole layers are not left out by chance in any
    case: ranks would wait for the gradients of each other's."""
    values: dict[str, float] = {"encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0}
    if dropout is not None:
        values |= {"cls_dropout": dropout, **dict.fromkeys(architecture_of(config).dropouts, dropout)}
    for name in values.keys() & {*config.to_dict(), *architecture_of(config).dropouts}:
        setattr(config, name, values[name])


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw random numbers on the CPU from `seed` inside the block, and leave the generator as it was."""
    # Not torch.manual_seed: it would also reseed accelerators, whose state is not put back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' warnings and progress bars inside the block: missing heads are expected here."""
    verbosity = transformers_logging.get_verbosity()
    had_progress_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_progress_bar:
            transformers_logging.enable_progress_bar()


def _check_stored_classes(path: Path, config: PreTrainedConfig, classes: int, labels: list[str] | None) -> None:
    stored = [str(config.id2label[id_]) for id_ in sorted(config.id2label)]
    if len(stored) != classes:
        raise UserError(
            f"{path}: was fine-tuned for {len(stored)} classes ({', '.join(stored[:5])}) where {classes} are needed; "
            "take a model of the same task or one that is not fine-tuned"
        )
    folded, given = [name.casefold() for name in stored], [name.casefold() for name in labels or []]
    if sorted(folded) == sorted(given) and folded != given:
        order = ", ".join(stored)
        raise UserError(f"{path}: its classes are in the order {order}; give the task's labels in that order")


def _is_said_untied(path: Path, config: PreTrainedConfig) -> bool:
    """Whether the file says so: T5's and mT5's configs, once read, say tied whatever it said."""
    said = json.loads((path / "config.json").read_text(encoding="utf-8")).get("tie_word_embeddings")
    return said is False or not config.tie_word_embeddings


def _projection_names(head: Head) -> set[str]:
    """What the projection's weight may be called; GPT-NeoX's files say `embed_out` for `lm_head`."""
    others = {f"{prefix}weight" for prefix in head.parameters if prefix not in head.stored}
    return {f"{head.layout.projection}.weight", *others}


def _unforeseen(model: PreTrainedModel, unexpected: Iterable[str]) -> list[str]:
    """Tensors of the trunk that the model has no place for. Those of other heads are not missed."""
    trunk = {name.partition(".")[0] for name, _ in model.base_model.named_children()}
    prefix = f"{model.base_model_prefix}."
    return sorted(
        name
        for name in unexpected
        if name.removeprefix(prefix).partition(".")[0] in trunk
        and not _HARMLESS.fullmatch(name)
        and not _POOLER.fullmatch(name)
    )


def _load(path: Path, head: Head, config: PreTrainedConfig, attention: str) -> tuple[PreTrainedModel, dict[str, Any]]:
    # Refuses, in one line, what from_pretrained tells in many, or does not notice.
    require_plain_weights(path)
    model, report = _from_pretrained(path, head, config, attention)
    if _has_own_projection(path, model, head, config):
        # Usual after a trained output layer was merged: what the config says of it is no longer true.
        config.tie_word_embeddings = False
        model, report = _from_pretrained(path, head, config, attention)
    return model, report


def _has_own_projection(path: Path, model: PreTrainedModel, head: Head, config: PreTrainedConfig) -> bool:
    """Whether the file holds an output layer that differs from the embeddings although the config ties them."""
    projection = model.get_output_embeddings()
    if not head.predicts_tokens or projection is None or not config.tie_word_embeddings:
        return False
    stored = read_tensors(path, _projection_names(head))
    return any(not torch.equal(tensor.to(projection.weight.dtype), projection.weight) for tensor in stored.values())


def _from_pretrained(
    path: Path, head: Head, config: PreTrainedConfig, attention: str
) -> tuple[PreTrainedModel, dict[str, Any]]:
    try:
        model, report = head.auto_class.from_pretrained(
            path,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            attn_implementation=attention_of(config, attention),
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise UserError(
            f"{path}: its weights do not fit its config.json ({one_line(error)}); fetch or make the model anew"
        ) from error
    if mismatched := sorted(report["mismatched_keys"]):
        name, stored, expected = mismatched[0]
        raise UserError(
            f"{path}: {name} is {_shape(stored)} in its weights and {_shape(expected)} by its config.json; fetch or "
            "make the model anew"
        )
    return model, report


def _shape(sizes: Iterable[int]) -> str:
    return " x ".join(map(str, sizes))
