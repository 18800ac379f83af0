"""The encoder family: where BERT-like models of transformers split, and how they are opened.

A head is named by what it predicts: `masked_tokens` (a token at every masked position) or `classes` (one value per
example, read at its first token: classification, and regression as one class).

Shapes: B examples, S tokens, P target positions, V classes, D hidden.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from lightpaff.errors import UserError, one_line
from lightpaff.models.headed import HeadedModel, HeadLayout

MASKED_TOKENS = "masked_tokens"
CLASSES = "classes"

HEADS: dict[str, Any] = {MASKED_TOKENS: AutoModelForMaskedLM, CLASSES: AutoModelForSequenceClassification}
"""Which transformers auto class has a head."""

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class EncoderHead:
    """One head of one architecture.

    Attributes:
        layout: where the model splits.
        parameters: the name prefixes of the tensors that belong to the head and not to the trunk.
        stored: the prefixes of those that every file with this head holds (a tied projection is not stored).
        foreign: a prefix that tells another head of the same architecture, where `stored` does not.
    """

    layout: HeadLayout
    parameters: tuple[str, ...]
    stored: tuple[str, ...]
    foreign: str | None = None


def _run_trunk(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    hidden_BSD: Tensor = model.base_model(**without_unknown_segments(model, inputs)).last_hidden_state
    return hidden_BSD


def _layout(*steps: str | Callable[[Tensor], Tensor], projection: str) -> HeadLayout:
    """The trunk, then `steps` one after the other (attribute paths of modules, or functions), then the projection."""

    def pre_head(model: PreTrainedModel, hidden_PD: Tensor) -> Tensor:
        for step in steps:
            hidden_PD = (attrgetter(step)(model) if isinstance(step, str) else step)(hidden_PD)
        return hidden_PD

    return HeadLayout(_run_trunk, pre_head, projection)


# The steps repeat, submodule by submodule, what the classes' own forward methods do on all tokens.
ENCODER_HEADS: dict[tuple[str, str], EncoderHead] = {
    ("bert", MASKED_TOKENS): EncoderHead(
        _layout("cls.predictions.transform", projection="cls.predictions.decoder"),
        ("cls.predictions.",),
        stored=("cls.predictions.transform.",),
    ),
    ("bert", CLASSES): EncoderHead(
        _layout("bert.pooler.dense", "bert.pooler.activation", "dropout", projection="classifier"),
        ("bert.pooler.", "classifier."),
        stored=("bert.pooler.", "classifier."),
    ),
    ("roberta", MASKED_TOKENS): EncoderHead(
        _layout("lm_head.dense", nn.functional.gelu, "lm_head.layer_norm", projection="lm_head.decoder"),
        ("lm_head.",),
        stored=("lm_head.dense.", "lm_head.layer_norm."),
    ),
    ("roberta", CLASSES): EncoderHead(
        _layout(
            "classifier.dropout",
            "classifier.dense",
            torch.tanh,
            "classifier.dropout",
            projection="classifier.out_proj",
        ),
        ("classifier.",),
        stored=("classifier.dense.", "classifier.out_proj."),
    ),
    ("electra", MASKED_TOKENS): EncoderHead(
        _layout("generator_predictions", projection="generator_lm_head"),
        ("generator_predictions.", "generator_lm_head."),
        stored=("generator_predictions.",),
    ),
    ("electra", CLASSES): EncoderHead(
        _layout(
            "classifier.dropout",
            "classifier.dense",
            "classifier.activation",
            "classifier.dropout",
            projection="classifier.out_proj",
        ),
        ("classifier.",),
        stored=("classifier.dense.", "classifier.out_proj."),
    ),
    ("distilbert", MASKED_TOKENS): EncoderHead(
        _layout("vocab_transform", "activation", "vocab_layer_norm", projection="vocab_projector"),
        ("vocab_transform.", "vocab_layer_norm.", "vocab_projector."),
        stored=("vocab_transform.", "vocab_layer_norm."),
    ),
    ("distilbert", CLASSES): EncoderHead(
        _layout("pre_classifier", nn.functional.relu, "dropout", projection="classifier"),
        ("pre_classifier.", "classifier."),
        stored=("pre_classifier.", "classifier."),
    ),
    # ModernBERT calls the part before the projection "head" under both heads.
    ("modernbert", MASKED_TOKENS): EncoderHead(
        _layout("head", projection="decoder"),
        ("head.", "decoder."),
        stored=("head.",),
        foreign="classifier.",
    ),
    ("modernbert", CLASSES): EncoderHead(
        _layout("head", "drop", projection="classifier"),
        ("head.", "classifier."),
        stored=("head.", "classifier."),
    ),
}

ARCHITECTURES = tuple(dict.fromkeys(model_type for model_type, _ in ENCODER_HEADS))

_BERT_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
DROPOUTS: dict[str, tuple[str, ...]] = {
    "bert": _BERT_DROPOUTS,
    "roberta": _BERT_DROPOUTS,
    "electra": _BERT_DROPOUTS,
    "distilbert": ("dropout", "attention_dropout", "seq_classif_dropout"),
    "modernbert": ("embedding_dropout", "attention_dropout", "mlp_dropout", "classifier_dropout"),
}
"""The names of an architecture's dropout probabilities in its config."""


def without_unknown_segments(model: PreTrainedModel, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inputs as this model takes them: a teacher may tell two sentences apart where its student does not."""
    if getattr(model.config, "type_vocab_size", 0) > 1:
        return inputs
    return {name: tensor for name, tensor in inputs.items() if name != "token_type_ids"}


def split_model(model: PreTrainedModel, head: str, classes: int) -> HeadedModel:
    """See a transformers model with the given head as trunk, pre-head and projection.

    Raises:
        UserError: the architecture is not supported, or pools all tokens where one is needed.
    """
    return HeadedModel(model, encoder_head(model.config, head).layout, classes)


def encoder_head(config: PreTrainedConfig, head: str) -> EncoderHead:
    """What is known about this head of this architecture.

    Raises:
        UserError: the architecture is not supported, or pools all tokens where one is needed.
    """
    name = config.name_or_path or config.model_type
    _check_architecture(config.model_type, name)
    pooling = getattr(config, "classifier_pooling", "cls")
    if head == CLASSES and pooling != "cls":
        raise UserError(f"{name}: classifier_pooling is '{pooling}' in its config.json; only 'cls' is supported")
    return ENCODER_HEADS[config.model_type, head]


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
    trust_remote_code: bool = False,
) -> HeadedModel:
    """Open a model directory in float32, in evaluation mode, with a head.

    Args:
        path: a directory written by `save_pretrained`, with safetensors weights.
        head: `masked_tokens` or `classes`.
        classes: V; for `classes`, 1 means regression.
        device: where the model goes.
        attention: transformers' `attn_implementation`: `eager` or `sdpa`.
        dropout: every dropout probability; None leaves the model's own.
        labels: the names of the classes in order, kept in the config.
        seed: of the head's parameters that the directory does not hold.
        trust_remote_code: run Python code that lies in the directory.

    Raises:
        UserError: the directory is no such model, its trunk is incomplete or its head has other classes.
    """
    config = read_config(path, trust_remote_code=trust_remote_code)
    if head == CLASSES and not lacks_head(path, head):
        _check_stored_classes(path, config, classes, labels)
    configure_head(config, head, classes, labels)
    set_dropout(config, dropout)
    parameters = encoder_head(config, head).parameters
    with quiet_transformers(), seeded(seed):
        model, report = _load(path, head, config, attention, trust_remote_code)
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(parameters))
    if missing:
        raise UserError(
            f"{path}: lacks {len(missing)} tensors of a {config.model_type}, such as {missing[0]}; "
            "its config.json and its weights do not belong together, or it was saved incompletely"
        )
    model.to(device)
    return split_model(model, head, classes)


def lacks_head(path: Path, head: str) -> bool:
    """Whether the directory's weights are without (a part of) this head. Reads tensor names only.

    A projection that is tied to the embeddings is not stored, and is not missed.

    Raises:
        UserError: the directory holds no readable safetensors weights or another architecture.
    """
    config = read_config(path)
    known = ENCODER_HEADS[config.model_type, head]
    names = tensor_names(path)
    if known.foreign is not None and any(name.startswith(known.foreign) for name in names):
        return True
    tied = head != MASKED_TOKENS or config.tie_word_embeddings
    needed = known.stored if tied else (*known.stored, f"{known.layout.projection}.weight")
    return not all(any(name.startswith(prefix) for name in names) for prefix in needed)


def tensor_names(path: Path) -> list[str]:
    """The names of the tensors in a model directory's safetensors file or files.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    try:
        if (path / WEIGHTS_INDEX).is_file():
            return sorted(json.loads((path / WEIGHTS_INDEX).read_text())["weight_map"])
        if not (path / WEIGHTS).is_file():
            raise UserError(f"{path}: holds no {WEIGHTS}; convert the model with save_pretrained")
        with safe_open(path / WEIGHTS, framework="pt") as file:
            return sorted(file.keys())
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: its safetensors weights cannot be read ({error}); fetch or make them anew") from error


def read_config(path: Path, *, trust_remote_code: bool = False) -> PreTrainedConfig:
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
    _check_architecture(model_type, str(path))
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code, local_files_only=True)
    # The config's own validation raises its own errors: whatever they are, the file is at fault.
    except Exception as error:
        raise UserError(
            f"{file}: is not a valid {model_type} config ({one_line(error)}); correct or fetch it anew"
        ) from error


def configure_head(config: PreTrainedConfig, head: str, classes: int, labels: list[str] | None = None) -> None:
    """Write the classes of the head into the config; a masked-token head's classes are already its vocab_size."""
    if head != CLASSES:
        return
    assert labels is None or len(labels) == classes
    config.num_labels = classes
    config.problem_type = "regression" if classes == 1 else "single_label_classification"
    if labels is not None:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: id_ for id_, label in enumerate(labels)}


def set_dropout(config: PreTrainedConfig, dropout: float | None) -> None:
    """Set every dropout probability of the config; None leaves them."""
    if dropout is not None:
        for name in DROPOUTS[config.model_type]:
            setattr(config, name, dropout)


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


def _check_architecture(model_type: str | None, name: str) -> None:
    if model_type not in ARCHITECTURES:
        raise UserError(f"{name}: model_type is {model_type!r} in its config.json; known: {', '.join(ARCHITECTURES)}")


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


def _load(
    path: Path, head: str, config: PreTrainedConfig, attention: str, trust_remote_code: bool
) -> tuple[PreTrainedModel, dict[str, Any]]:
    tensor_names(path)  # Refuses, in one line, what from_pretrained tells in many.
    try:
        model, report = HEADS[head].from_pretrained(
            path,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            attn_implementation=attention,
            trust_remote_code=trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise UserError(
            f"{path}: its weights do not fit its config.json ({one_line(error)}); fetch or make the model anew"
        ) from error
    return model, report
