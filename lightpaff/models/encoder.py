"""The encoder family: where BERT-like models of transformers split, what their configs call things.

Its heads are `masked_tokens` (a token at every masked position), `classes` (one value per example, read at its first
token: classification, and regression as one class), `token_classes` (a class for every token that is asked for) and
`spans` (the token at which an answer starts, and that at which it ends).

Shapes: B examples, S tokens, P target positions, V classes, D hidden.
"""

from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lightpaff.models.architecture import (
    CLASSES,
    MASKED_TOKENS,
    SPANS,
    TOKEN_CLASSES,
    Architecture,
    Head,
    LayerList,
    SizeNames,
)
from lightpaff.models.headed import HeadLayout
from lightpaff.recipe_sections import FromScratch, Shape


def without_unknown_segments(model: PreTrainedModel, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inputs as this model takes them: a teacher may tell two sentences apart where its student does not."""
    if getattr(model.config, "type_vocab_size", 0) > 1:
        return inputs
    return {name: tensor for name, tensor in inputs.items() if name != "token_type_ids"}


def logits_of(output: Any) -> Tensor:
    """What a transformers model said, of spans as B x S x 2: start and end."""
    if "logits" in output:
        logits: Tensor = output.logits
        return logits
    return torch.stack([output.start_logits, output.end_logits], dim=-1)


def _run_trunk(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    hidden_BSD: Tensor = model.base_model(**without_unknown_segments(model, inputs)).last_hidden_state
    return hidden_BSD


def _run_pooled_trunk(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    """The trunk; where the model pools by the mean, that of its tokens is in the place of the first."""
    hidden_BSD = _run_trunk(model, inputs)
    if model.config.classifier_pooling == "cls":
        return hidden_BSD
    mask_BS1 = inputs["attention_mask"].unsqueeze(-1)
    mean_B1D = (hidden_BSD * mask_BS1).sum(dim=1, keepdim=True) / mask_BS1.sum(dim=1, keepdim=True)
    return torch.cat([mean_B1D, hidden_BSD[:, 1:]], dim=1)


def _layout(
    *steps: str | Callable[[Tensor], Tensor],
    projection: str,
    trunk: Callable[[PreTrainedModel, dict[str, Tensor]], Tensor] = _run_trunk,
) -> HeadLayout:
    """The trunk, then `steps` one after the other (attribute paths of modules, or functions), then the projection."""

    def pre_head(model: PreTrainedModel, hidden_PD: Tensor) -> Tensor:
        for step in steps:
            hidden_PD = (attrgetter(step)(model) if isinstance(step, str) else step)(hidden_PD)
        return hidden_PD

    return HeadLayout(trunk, projection, pre_head)


def _masked_tokens(
    layout: HeadLayout, parameters: tuple[str, ...], stored: tuple[str, ...], foreign: str | None = None
) -> Head:
    return Head(AutoModelForMaskedLM, layout, parameters, stored, foreign)


def _classes(layout: HeadLayout, parameters: tuple[str, ...], stored: tuple[str, ...] | None = None) -> Head:
    return Head(AutoModelForSequenceClassification, layout, parameters, stored or parameters, predicts_tokens=False)


def _token_classes(*steps: str, foreign: str | None = None, parameters: tuple[str, ...] = ("classifier.",)) -> Head:
    layout = _layout(*steps, projection="classifier")
    stored = (*parameters[:-1], "classifier.weight")
    return Head(AutoModelForTokenClassification, layout, parameters, stored, foreign, predicts_tokens=False)


def _spans(*steps: str, projection: str = "qa_outputs", parameters: tuple[str, ...] = ("qa_outputs.",)) -> Head:
    layout = replace(_layout(*steps, projection=projection), spans=True)
    return Head(AutoModelForQuestionAnswering, layout, parameters, parameters, predicts_tokens=False)


def _positions_after_padding(config: PreTrainedConfig) -> int:
    """RoBERTa counts positions from the padding id + 1."""
    return int(config.max_position_embeddings - config.pad_token_id - 1)


def _resize_embeddings(config: PreTrainedConfig, teacher_config: PreTrainedConfig, shape: Shape) -> None:
    """ELECTRA's embeddings are as wide as its layers where the teacher's are."""
    if teacher_config.embedding_size == teacher_config.hidden_size:
        config.embedding_size = shape.hidden_size


def _embedding_size(from_scratch: FromScratch, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {"embedding_size": from_scratch.hidden_size}


def _first_and_last_ids(from_scratch: FromScratch, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}


def _roberta_settings(from_scratch: FromScratch, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    positions = from_scratch.max_length + tokenizer.pad_token_id + 1
    return {**_first_and_last_ids(from_scratch, tokenizer), "max_position_embeddings": positions}


def _positions_after_one(config: PreTrainedConfig) -> int:
    """MPNet counts from 2, whatever its padding id is."""
    return int(config.max_position_embeddings - 2)


def _mpnet_settings(from_scratch: FromScratch, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {**_first_and_last_ids(from_scratch, tokenizer), "max_position_embeddings": from_scratch.max_length + 2}


def _resize_pooler(config: PreTrainedConfig, teacher_config: PreTrainedConfig, shape: Shape) -> None:
    config.pooler_hidden_size = shape.hidden_size


def _deberta_settings(from_scratch: FromScratch, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """As DeBERTa-v3 has it (He et al. 2021); transformers' own defaults leave relative positions out."""
    return {
        "relative_attention": True,
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "pooler_hidden_size": from_scratch.hidden_size,
    }


def _unlike_deberta(config: PreTrainedConfig) -> str:
    if config.pooler_hidden_act != "gelu":
        return f"the pooler's activation {config.pooler_hidden_act}, where all known ones have gelu"
    return "" if config.legacy else "legacy false, which names its output layer otherwise"


def _modernbert_settings(from_scratch: FromScratch, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    ids = {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
    return {**_first_and_last_ids(from_scratch, tokenizer), **ids}


_BERT_HALVES = ("attention.self", "attention.output")
_BERT_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")

_ROBERTA = Architecture(
    heads={
        MASKED_TOKENS: _masked_tokens(
            _layout("lm_head.dense", nn.functional.gelu, "lm_head.layer_norm", projection="lm_head.decoder"),
            ("lm_head.",),
            stored=("lm_head.dense.", "lm_head.layer_norm."),
        ),
        CLASSES: _classes(
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
        TOKEN_CLASSES: _token_classes("dropout"),
        SPANS: _spans(),
    },
    layers=(LayerList("roberta.encoder.layer"),),
    layer_halves=_BERT_HALVES,
    dropouts=_BERT_DROPOUTS,
    longest_input=_positions_after_padding,
    scratch_settings=_roberta_settings,
)

# The steps repeat, submodule by submodule, what the classes' own forward methods do on all tokens.
ARCHITECTURES: dict[str, Architecture] = {
    "bert": Architecture(
        heads={
            MASKED_TOKENS: _masked_tokens(
                _layout("cls.predictions.transform", projection="cls.predictions.decoder"),
                ("cls.predictions.",),
                stored=("cls.predictions.transform.",),
            ),
            CLASSES: _classes(
                _layout("bert.pooler.dense", "bert.pooler.activation", "dropout", projection="classifier"),
                ("bert.pooler.", "classifier."),
            ),
            TOKEN_CLASSES: _token_classes("dropout", foreign="bert.pooler."),
            SPANS: _spans(),
        },
        layers=(LayerList("bert.encoder.layer"),),
        layer_halves=_BERT_HALVES,
        dropouts=_BERT_DROPOUTS,
    ),
    "roberta": _ROBERTA,
    # Other languages, the same classes.
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "mpnet": replace(
        _ROBERTA,
        layers=(LayerList("mpnet.encoder.layer"),),
        layer_halves=("attention.attn", "attention.LayerNorm"),
        dropouts=("hidden_dropout_prob", "attention_probs_dropout_prob"),
        longest_input=_positions_after_one,
        scratch_settings=_mpnet_settings,
        has_sdpa=False,
    ),
    "deberta-v2": Architecture(
        heads={
            MASKED_TOKENS: _masked_tokens(
                _layout("cls.predictions.transform", projection="cls.predictions.decoder"),
                ("cls.predictions.",),
                stored=("cls.predictions.transform.",),
            ),
            CLASSES: _classes(
                _layout("pooler.dropout", "pooler.dense", nn.functional.gelu, "dropout", projection="classifier"),
                ("pooler.", "classifier."),
            ),
            TOKEN_CLASSES: _token_classes("dropout", foreign="pooler."),
            SPANS: _spans(),
        },
        layers=(LayerList("deberta.encoder.layer"),),
        layer_halves=_BERT_HALVES,
        dropouts=("hidden_dropout_prob", "attention_probs_dropout_prob", "pooler_dropout"),
        before_resizing=_resize_pooler,
        scratch_settings=_deberta_settings,
        unlike=_unlike_deberta,
        has_sdpa=False,
    ),
    "electra": Architecture(
        heads={
            MASKED_TOKENS: _masked_tokens(
                _layout("generator_predictions", projection="generator_lm_head"),
                ("generator_predictions.", "generator_lm_head."),
                stored=("generator_predictions.",),
            ),
            CLASSES: _classes(
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
            TOKEN_CLASSES: _token_classes("dropout"),
            SPANS: _spans(),
        },
        layers=(LayerList("electra.encoder.layer"),),
        layer_halves=_BERT_HALVES,
        dropouts=_BERT_DROPOUTS,
        before_resizing=_resize_embeddings,
        scratch_settings=_embedding_size,
    ),
    "distilbert": Architecture(
        heads={
            MASKED_TOKENS: _masked_tokens(
                _layout("vocab_transform", "activation", "vocab_layer_norm", projection="vocab_projector"),
                ("vocab_transform.", "vocab_layer_norm.", "vocab_projector."),
                stored=("vocab_transform.", "vocab_layer_norm."),
            ),
            CLASSES: _classes(
                _layout("pre_classifier", nn.functional.relu, "dropout", projection="classifier"),
                ("pre_classifier.", "classifier."),
            ),
            TOKEN_CLASSES: _token_classes("dropout", foreign="pre_classifier."),
            SPANS: _spans("dropout"),
        },
        layers=(LayerList("distilbert.transformer.layer"),),
        layer_halves=("attention", "sa_layer_norm"),
        dropouts=("dropout", "attention_dropout", "seq_classif_dropout", "qa_dropout"),
        sizes=SizeNames(layers=("n_layers",), hidden_size=("dim",), heads=("n_heads",), feed_forward=("hidden_dim",)),
    ),
    "modernbert": Architecture(
        # ModernBERT calls the part before the projection "head" under both heads.
        heads={
            MASKED_TOKENS: _masked_tokens(
                _layout("head", projection="decoder"),
                ("head.", "decoder."),
                stored=("head.",),
                foreign="classifier.",
            ),
            CLASSES: _classes(
                _layout("head", "drop", projection="classifier", trunk=_run_pooled_trunk), ("head.", "classifier.")
            ),
            TOKEN_CLASSES: _token_classes("head", "drop", parameters=("head.", "classifier.")),
            SPANS: _spans("head", "drop", projection="classifier", parameters=("head.", "classifier.")),
        },
        layers=(LayerList("model.layers"),),
        dropouts=("embedding_dropout", "attention_dropout", "mlp_dropout", "classifier_dropout"),
        scratch_settings=_modernbert_settings,
        needs_even_head_size=True,
    ),
}
