"""Exports for CTranslate2: decoders and encoder-decoders, with their vocabulary and tokenizer.

CTranslate2's own converter opens a model by its name on the Hub, with the vocabulary of the tokenizer that belongs to
it. Students differ: their tokenizers are made here, their vocabularies may be padded, and transformers 5 renamed what
the converter reads. So the model is opened here, and only the parts of the converter that copy weights are used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ctranslate2.converters import transformers as conversion
from ctranslate2.specs.model_spec import ModelSpec
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lightpaff.deployment.card import Quantisation
from lightpaff.errors import UserError, one_line
from lightpaff.models.architecture import NEXT_TOKENS, TARGET_TOKENS
from lightpaff.models.opening import open_headed, quiet_transformers, read_config
from lightpaff.models.vocabulary import load_tokenizer, number_of_classes
from lightpaff.recipe import Family

TOKENIZER = "tokenizer.json"

_STORED_AS: dict[Quantisation, str] = {"none": "float32", "int8": "int8", "bf16": "bfloat16"}
_FAMILIES: dict[str, Family] = {NEXT_TOKENS: "decoder", TARGET_TOKENS: "encoder-decoder"}
_NEVER = -1e9
"""A bias that keeps a token from ever being written."""


def export_ctranslate2(
    model_directory: Path, destination: Path, quantisation: Quantisation, decoder_start: str | None = None
) -> None:
    """Write a decoder or an encoder-decoder as CTranslate2 reads it, with its tokenizer.json.

    An encoder-decoder never writes its padding token, as in `lightpaff.evaluation.generation`.

    Args:
        model_directory: written by `save_pretrained`, with the tokenizer.
        destination: a directory, made where it is missing.
        quantisation: of the weights; biases and norms stay float32, in `bf16` they are bfloat16 too.
        decoder_start: the token that the decoder of an encoder-decoder begins with; None is the model's own.

    Raises:
        UserError: the model is of no architecture that can be converted, has a feature that CTranslate2 lacks or that
            its converter drops, or its directory cannot be read.
    """
    config = read_config(model_directory)
    recipe = _recipe_of(config, model_directory)
    tokenizer = load_tokenizer(model_directory, _FAMILIES[recipe.head])
    classes = number_of_classes(tokenizer, config)
    model = open_headed(model_directory, recipe.head, classes, device="cpu", attention="eager").model
    recipe.adapt(model)
    try:
        with torch.no_grad(), quiet_transformers():
            spec = recipe.loader.get_model_spec(model)
            recipe.finish(spec, model)
            _set_vocabulary(spec, recipe, model, tokenizer, decoder_start)
            spec.validate()
            spec.optimize(quantization=_STORED_AS[quantisation])
    except (NotImplementedError, ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"{model_directory}: CTranslate2 cannot take this {config.model_type} ({one_line(error)}); "
            "export it to another format"
        ) from error
    destination.mkdir(parents=True, exist_ok=True)
    spec.save(str(destination))
    tokenizer.backend_tokenizer.save(str(destination / TOKENIZER))


@dataclass(frozen=True)
class _Recipe:
    """How one model type is converted.

    Attributes:
        loader: the converter's part that copies the weights.
        head: the model's.
        epsilon: what the config calls that of its norms; None is PyTorch's own, 1e-5.
        missing: says which of the config's features would be lost; empty when none is.
        adapt: puts names on the opened model that the converter looks for and transformers 5 has no more.
        finish: sets what the converter leaves out.
    """

    loader: Any
    head: str
    epsilon: str | None
    missing: Callable[[PreTrainedConfig], str] = lambda config: ""
    adapt: Callable[[PreTrainedModel], None] = lambda model: None
    finish: Callable[[ModelSpec, PreTrainedModel], None] = lambda spec, model: None


def _recipe_of(config: PreTrainedConfig, model_directory: Path) -> _Recipe:
    recipe = _RECIPES.get(config.model_type)
    if recipe is None:
        raise UserError(
            f"{model_directory}: is a {config.model_type}, and to CTranslate2 go only {', '.join(_RECIPES)}; "
            "export it to another format"
        )
    if missing := recipe.missing(config):
        raise UserError(f"{model_directory}: CTranslate2's converter drops {missing}; export it to another format")
    return recipe


def _set_vocabulary(
    spec: Any,
    recipe: _Recipe,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    decoder_start: str | None,
) -> None:
    tokens = _tokens_by_id(tokenizer, model.config.vocab_size)
    recipe.loader.set_vocabulary(spec, tokens)
    known = set(tokens)
    end = tokenizer.eos_token
    # A token that the vocabulary lacks would be added to it, beyond the rows of the embeddings.
    spec.config.eos_token = end
    spec.config.bos_token = tokenizer.bos_token if tokenizer.bos_token in known else end
    spec.config.unk_token = tokenizer.unk_token if tokenizer.unk_token in known else end
    epsilon = 1e-5 if recipe.epsilon is None else getattr(model.config, recipe.epsilon)
    spec.config.layer_norm_epsilon = float(epsilon)
    if recipe.head == TARGET_TOKENS:
        spec.config.decoder_start_token = _first_token(tokens, model.config, decoder_start)
        if tokenizer.pad_token != end:
            _never_write(spec.decoder.projection, tokens.index(tokenizer.pad_token))


def _tokens_by_id(tokenizer: PreTrainedTokenizerBase, rows: int) -> list[str]:
    """A token for every row of the embeddings: those that the tokenizer does not know get names of their own."""
    by_id = {id_: token for token, id_ in tokenizer.get_vocab().items()}
    tokens, taken = [], set(by_id.values())
    for id_ in range(rows):
        token = by_id.get(id_)
        if token is None:
            token = f"<unused {id_}>"
            assert token not in taken
        tokens.append(token)
    return tokens


def _first_token(tokens: list[str], config: PreTrainedConfig, decoder_start: str | None) -> str:
    if decoder_start is None:
        if config.decoder_start_token_id is None:
            raise UserError(f"{config.name_or_path}: its config.json has no decoder_start_token_id; add it")
        return tokens[config.decoder_start_token_id]
    if decoder_start not in tokens:
        raise UserError(f"decoder_start: the tokenizer of {config.name_or_path} has no token {decoder_start}")
    return decoder_start


def _never_write(projection: Any, id_: int) -> None:
    bias_V = projection.bias.numpy() if projection.has_bias() else np.zeros(projection.weight.shape[0], np.float32)
    bias_V = np.array(bias_V, dtype=np.float32)
    bias_V[id_] = _NEVER
    projection.bias = bias_V
