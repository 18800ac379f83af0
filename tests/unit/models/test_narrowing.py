"""A narrower student is the part of its teacher that is most active.

Shapes: H heads, D hidden, U feed-forward units, V tokens.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.pytorch_utils import Conv1D

from lightpaff.errors import UserError
from lightpaff.models.families import ARCHITECTURES
from lightpaff.models.initialisation import check_sizes, create_student
from lightpaff.models.narrowing import WIDTHS
from lightpaff.models.opening import split_model
from lightpaff.models.shapes import scratch_config, student_config
from lightpaff.recipe_sections import FromScratch, Shape

VOCABULARY, HEADS, HEAD_SIZE, UNITS = 43, 4, 6, 20
HIDDEN = HEADS * HEAD_SIZE
TOKENIZER = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer(models.WordLevel({f"w{number}": number for number in range(VOCABULARY - 5)}, "w0")),
    pad_token="<pad>",
    bos_token="<s>",
    eos_token="</s>",
    cls_token="<cls>",
    sep_token="<sep>",
)
LIVE_HEADS, LIVE_UNITS = [0, 2], list(range(1, UNITS, 2))
LIVE_HIDDEN = sorted(set(range(HIDDEN)) - set(range(3, HIDDEN, 2)) - {0})[: HIDDEN // 2]


@dataclass(frozen=True)
class Names:
    """The last parts of module names: queries, keys and values; what takes heads; units' two sides."""

    into_heads: tuple[str, ...]
    out_of_heads: tuple[str, ...]
    into_units: tuple[str, ...]
    out_of_units: tuple[str, ...]


_BERT = Names(
    ("self.query", "self.key", "self.value"), ("attention.output.dense",), ("intermediate.dense",), ("output.dense",)
)
_LLAMA = Names(("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
_BART = Names(("q_proj", "k_proj", "v_proj"), ("out_proj",), ("fc1",), ("fc2",))
NAMES = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _BERT),
    "distilbert": Names(("q_lin", "k_lin", "v_lin"), ("out_lin",), ("lin1",), ("lin2",)),
    "gpt2": Names(("c_attn",), ("attn.c_proj",), ("c_fc",), ("mlp.c_proj",)),
    **dict.fromkeys(("llama", "qwen2", "qwen3", "mistral"), _LLAMA),
    **dict.fromkeys(("bart", "mbart"), _BART),
}


def head_of(architecture: str) -> str:
    return next(iter(ARCHITECTURES[architecture].heads))


def make_config(architecture: str) -> Any:
    sizes = {"layers": 3, "hidden_size": HIDDEN, "heads": HEADS, "feed_forward": UNITS, "max_length": 16}
    return scratch_config(FromScratch.model_validate({"architecture": architecture, **sizes}), TOKENIZER)


def build(architecture: str) -> PreTrainedModel:
    torch.manual_seed(1)
    auto = ARCHITECTURES[architecture].heads[head_of(architecture)].auto_class
    teacher: PreTrainedModel = auto.from_config(make_config(architecture), attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return teacher


def rows_of(module: nn.Module, rows: list[int], change: Callable[[Tensor], Tensor]) -> None:
    """Change some outputs of a linear module."""
    with torch.no_grad():
        weight = module.weight.T if isinstance(module, Conv1D) else module.weight
        assert isinstance(weight, Tensor)
        weight[rows] = change(weight[rows])
        if isinstance(module.bias, Tensor):
            module.bias[rows] = change(module.bias[rows])


def inputs_of(architecture: str) -> dict[str, Tensor]:
    ids_BS = torch.randint(5, VOCABULARY - 6, (4, 9), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids_BS, "attention_mask": torch.ones_like(ids_BS)}
    if NAMES[architecture] is _BART:
        inputs["decoder_input_ids"] = ids_BS.flip(0)[:, :5]
        inputs["decoder_attention_mask"] = torch.ones_like(inputs["decoder_input_ids"])
    return inputs


def cut(architecture: str, teacher: PreTrainedModel, path: Path, **shape: int) -> PreTrainedModel:
    teacher.save_pretrained(path)
    return create_student(
        student_config(make_config(architecture), Shape(layers=3, **shape)),
        head_of(architecture),
        VOCABULARY,
        initialisation="teacher",
        teacher_path=path,
        seed=0,
        attention="eager",
        calibration=[inputs_of(architecture)],
    )


def test_every_architecture_is_tested() -> None:
    assert NAMES.keys() == WIDTHS.keys()


@pytest.mark.parametrize("architecture", WIDTHS)
def test_without_its_dead_units_a_model_says_the_same(architecture: str, tmp_path: Path) -> None:
    teacher = build(architecture)
    dead = [unit for unit in range(UNITS) if unit not in LIVE_UNITS]
    for name, module in teacher.named_modules():
        if name.endswith(NAMES[architecture].into_units) and hasattr(module, "weight"):
            rows_of(module, dead, torch.zeros_like)
    student = cut(architecture, teacher, tmp_path / "teacher", feed_forward=len(LIVE_UNITS))
    inputs = inputs_of(architecture)
    with torch.no_grad():
        found, expected = student(**inputs).logits, teacher(**inputs).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in student.parameters()) < sum(p.numel() for p in teacher.parameters())


def test_positions_keep_their_size_beside_tokens_that_are_scaled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mBART multiplies its tokens by the root of the hidden size, which is smaller in the student."""
    config = make_config("mbart")
    config.scale_embedding = True
    monkeypatch.setattr(f"{__name__}.make_config", lambda architecture: copy.deepcopy(config))
    teacher = build("mbart")
    student = cut("mbart", teacher, tmp_path / "teacher", hidden_size=HIDDEN // 2)
    ids_BS = torch.arange(5, 14)[None]
    sizes = []
    for model in (teacher, student):
        encoder = model.get_encoder()
        whole = encoder.embed_tokens(ids_BS) + encoder.embed_positions(ids_BS)
        sizes.append((whole / encoder.embed_tokens(ids_BS)).detach())
    weight_VD, cut_VD = (model.get_input_embeddings().weight for model in (teacher, student))
    kept = [int((weight_VD[: len(cut_VD)] == column[:, None]).all(0).nonzero()) for column in cut_VD.T]
    torch.testing.assert_close(sizes[1], sizes[0][..., kept])


@pytest.mark.parametrize("architecture", WIDTHS)
def test_the_most_active_dimensions_and_heads_are_taken(architecture: str, tmp_path: Path) -> None:
    """Norms and values are made so that it is known which these are."""
    teacher, names = build(architecture), NAMES[architecture]
    fused = 3 if architecture == "gpt2" else 1
    with torch.no_grad():
        for name, module in teacher.named_modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, Tensor) and weight.shape == (HIDDEN,):
                loud_D = torch.zeros(HIDDEN)
                loud_D[LIVE_HIDDEN] = 1
                weight.copy_(0.5 * loud_D + 0.01)
                if isinstance(getattr(module, "bias", None), Tensor):
                    module.bias.copy_(3 * loud_D)
            if name.endswith(names.into_heads[-1]) and hasattr(module, "weight"):
                start = (fused - 1) * HIDDEN
                quiet = [start + h * HEAD_SIZE + i for h in (1, 3) for i in range(HEAD_SIZE)]
                rows_of(module, quiet, lambda rows: rows * 1e-3)
    student = cut(architecture, teacher, tmp_path / "teacher", hidden_size=HIDDEN // 2)
    of_teacher, of_student = teacher.state_dict(), student.state_dict()
    heads = [h * HEAD_SIZE + i for h in LIVE_HEADS for i in range(HEAD_SIZE)]
    seen = set()
    for name, own in of_student.items():
        module_name, _, parameter = name.rpartition(".")
        module, whole = student.get_submodule(module_name), of_teacher[name]
        is_transposed = isinstance(module, Conv1D) and parameter == "weight"
        if module_name.endswith(names.into_heads):
            rows = [row + number * HIDDEN for number in range(fused) for row in heads]
            whole = whole.T if is_transposed else whole
            own = own.T if is_transposed else own
            whole = whole[rows]
            expected = whole[:, LIVE_HIDDEN] if parameter == "weight" else whole
            seen.add("into heads")
        elif module_name.endswith(names.out_of_heads):
            whole = whole.T if is_transposed else whole
            own = own.T if is_transposed else own
            expected = whole[LIVE_HIDDEN][:, heads] if parameter == "weight" else whole[LIVE_HIDDEN]
            seen.add("out of heads")
        elif isinstance(module, nn.Embedding):
            expected = whole[:, LIVE_HIDDEN]
            seen.add("embeddings")
        elif whole.shape == (HIDDEN,):
            expected = whole[LIVE_HIDDEN]
            seen.add("norms")
        else:
            continue
        assert torch.equal(own, expected), name
    assert seen == {"into heads", "out of heads", "embeddings", "norms"}
    split_model(student, head_of(architecture), VOCABULARY)
    with torch.no_grad():
        assert bool(student(**inputs_of(architecture)).logits.isfinite().all())


@pytest.mark.parametrize(
    ("architecture", "shape", "message"),
    [
        ("bert", {"feed_forward": UNITS + 1}, r"student\.feed_forward is 21 and the teacher's 20: .* is not wider"),
        (
            "bert",
            {"hidden_size": 12, "heads": 3},
            r"student\.heads is 3, which makes heads of 4, and the teacher's have 6",
        ),
        ("t5", {"hidden_size": 12}, r"cannot be cut out of t5 \(bert, .* can be\); leave hidden_size, heads and"),
    ],
)
def test_what_cannot_be_cut_is_refused(architecture: str, shape: dict[str, int], message: str) -> None:
    config = make_config(architecture)
    with pytest.raises(UserError, match=message) as caught:
        check_sizes(student_config(config, Shape(layers=2, **shape)), config)
    assert "set student.initialisation to random" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_electra_as_narrow_as_its_embeddings_is_refused() -> None:
    config = make_config("electra")
    config.embedding_size = config.hidden_size - 6
    narrow = Shape(layers=2, hidden_size=config.embedding_size, heads=config.num_attention_heads - 1)
    with pytest.raises(UserError, match="as wide as the teacher's embeddings, where electra has no projection"):
        check_sizes(student_config(config, narrow), config)
