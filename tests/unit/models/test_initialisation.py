import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoModel, AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerFast

from lightpaff.errors import UserError
from lightpaff.models.architecture import CLASSES, TARGET_TOKENS
from lightpaff.models.families import ARCHITECTURES
from lightpaff.models.initialisation import check_sizes, create_student, evenly_spaced
from lightpaff.models.opening import open_headed
from lightpaff.models.shapes import scratch_config, student_config
from lightpaff.models.weights import WEIGHTS
from lightpaff.recipe_sections import FromScratch, Shape

VOCABULARY = 23


TOKENIZER = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer(models.WordLevel({f"w{number}": number for number in range(VOCABULARY - 5)}, "w0")),
    pad_token="<pad>",
    bos_token="<s>",
    eos_token="</s>",
    cls_token="<cls>",
    sep_token="<sep>",
)


def make_config(architecture: str, **sizes: int) -> Any:
    given = {"layers": 6, "hidden_size": 8, "heads": 2, "feed_forward": 12, "max_length": 24, **sizes}
    return scratch_config(FromScratch.model_validate({"architecture": architecture, **given}), TOKENIZER)


def pretraining_head(architecture: str) -> str:
    return next(iter(ARCHITECTURES[architecture].heads))


def save_teacher(path: Path, architecture: str, spare_rows: int = 0, **sizes: int) -> PreTrainedModel:
    auto_class = ARCHITECTURES[architecture].heads[pretraining_head(architecture)].auto_class
    config = make_config(architecture, **sizes)
    config.vocab_size += spare_rows
    if getattr(config, "decoder_vocab_size", None):
        config.decoder_vocab_size = config.vocab_size
    teacher: PreTrainedModel = auto_class.from_config(config)
    with torch.no_grad():
        # Fresh norms and biases are all alike: a swapped one would not show.
        for parameter in teacher.parameters():
            # Marian's positions are sinusoids: nothing changes them.
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    teacher.save_pretrained(path)
    return teacher


def start_student(architecture: str, teacher_path: Path | None, **sizes: Any) -> PreTrainedModel:
    settings: dict[str, Any] = {"head": pretraining_head(architecture), "classes": VOCABULARY, "seed": 0, **sizes}
    shape = Shape.model_validate(
        {"layers": 3, **{key: settings.pop(key) for key in sizes if key in Shape.model_fields}}
    )
    return create_student(
        student_config(make_config(architecture), shape),
        initialisation="random" if teacher_path is None else "teacher",
        teacher_path=teacher_path,
        attention="eager",
        **settings,
    )


@pytest.mark.parametrize(
    ("teacher_layers", "student_layers", "expected"),
    [(6, 3, [0, 2, 5]), (12, 6, [0, 2, 4, 7, 9, 11]), (12, 3, [0, 5, 11]), (4, 4, [0, 1, 2, 3]), (5, 1, [0])],
)
def test_the_chosen_layers(teacher_layers: int, student_layers: int, expected: list[int]) -> None:
    assert evenly_spaced(teacher_layers, student_layers) == expected


@given(data=st.data(), teacher_layers=st.integers(2, 60))
def test_the_chosen_layers_are_spread_from_first_to_last(data: st.DataObject, teacher_layers: int) -> None:
    student_layers = data.draw(st.integers(2, teacher_layers))
    chosen = evenly_spaced(teacher_layers, student_layers)
    steps = {later - earlier for earlier, later in pairwise(chosen)}
    assert (chosen[0], chosen[-1], len(chosen)) == (0, teacher_layers - 1, student_layers)
    assert min(steps) >= 1
    assert max(steps) - min(steps) <= 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_student_has_the_chosen_layers_of_its_teacher(architecture: str, tmp_path: Path) -> None:
    teacher = save_teacher(tmp_path, architecture)
    student = start_student(architecture, tmp_path)
    teacher_state, paths = teacher.state_dict(), [layers.path for layers in ARCHITECTURES[architecture].layers]
    chosen = {f"{path}.{place}.": f"{path}.{layer}." for path in paths for place, layer in enumerate([0, 2, 5])}
    copied = dict.fromkeys(chosen, 0)
    for name, tensor in student.state_dict().items():
        source = name
        for here, there in chosen.items():
            if name.startswith(here):
                source = there + name.removeprefix(here)
                copied[here] += 1
        assert torch.equal(tensor, teacher_state[source]), name
    assert min(copied.values()) >= 5
    assert [len(list(student.get_submodule(path).children())) for path in paths] == [3] * len(paths)


@pytest.mark.parametrize("architecture", ["bert", "t5", "gpt2"])
def test_a_student_has_the_layers_that_are_named(architecture: str, tmp_path: Path) -> None:
    teacher = save_teacher(tmp_path, architecture).state_dict()
    named = {"layers": [0, 1, 4], "decoder_layers": [0, 4, 5]}
    lists = ARCHITECTURES[architecture].layers
    taken = {layers.count: named[layers.count] for layers in lists}
    student = start_student(architecture, tmp_path, named_layers=taken).state_dict()
    for layers in lists:
        for place, layer in enumerate(taken[layers.count]):
            names = [name for name in student if name.startswith(f"{layers.path}.{place}.")]
            assert names
            for name in names:
                there = name.replace(f"{layers.path}.{place}.", f"{layers.path}.{layer}.")
                assert torch.equal(student[name], teacher[there])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_beyond_the_tokenizer_are_left_out(architecture: str, tmp_path: Path) -> None:
    """No loss trains them, and other programs' softmax counts them."""
    teacher = save_teacher(tmp_path, architecture, spare_rows=3).eval()
    config = student_config(teacher.config, Shape(layers=6), VOCABULARY)
    head = pretraining_head(architecture)
    settings: dict[str, Any] = {"teacher_path": tmp_path, "attention": "eager", "seed": 0}
    student = create_student(config, head, VOCABULARY, initialisation="teacher", **settings)
    ids = torch.tensor([[7, 5, 9, 8, 6]])
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if teacher.config.is_encoder_decoder else {})
    with torch.no_grad():
        logits, expected = student(**inputs).logits, teacher(**inputs).logits
    assert (logits.shape[-1], expected.shape[-1]) == (VOCABULARY, VOCABULARY + 3)
    torch.testing.assert_close(logits, expected[..., :VOCABULARY], rtol=1e-3, atol=1e-3)


def test_a_decoder_with_other_heads_and_units_than_its_encoder_stays_so(tmp_path: Path) -> None:
    config = make_config("bart")
    config.decoder_attention_heads, config.decoder_ffn_dim = 4, 18
    teacher = AutoModelForSeq2SeqLM.from_config(config).eval()
    teacher.save_pretrained(tmp_path)
    shape = Shape(layers=6)
    student = create_student(
        student_config(config, shape),
        "target_tokens",
        VOCABULARY,
        initialisation="teacher",
        teacher_path=tmp_path,
        seed=0,
        attention="eager",
    )
    ids = torch.tensor([[7, 5, 9, 8, 6]])
    with torch.no_grad():
        found, expected = (model(input_ids=ids, decoder_input_ids=ids).logits for model in (student, teacher))
    torch.testing.assert_close(found, expected)
    narrower = student_config(config, Shape(layers=6, hidden_size=4, heads=1, feed_forward=6))
    assert (narrower.decoder_attention_heads, narrower.decoder_ffn_dim) == (2, 9)
    with pytest.raises(UserError, match="a teacher whose sides differ"):
        check_sizes(narrower, config)
    with pytest.raises(UserError, match=r"student\.feed_forward is 7 .encoder_ffn_dim., and the teacher has 12 there"):
        student_config(config, Shape(layers=6, feed_forward=7))


@pytest.mark.parametrize("architecture", ["bart", "t5"])
def test_a_decoder_takes_its_own_evenly_spaced_layers(architecture: str, tmp_path: Path) -> None:
    teacher = save_teacher(tmp_path, architecture, layers=3, decoder_layers=4).state_dict()
    student = start_student(architecture, tmp_path, layers=2, decoder_layers=3).state_dict()
    encoder_path, decoder_path = (layers.path for layers in ARCHITECTURES[architecture].layers)
    for path, layers in ((encoder_path, [0, 2]), (decoder_path, [0, 1, 3])):
        for place, layer in enumerate(layers):
            names = [name for name in student if name.startswith(f"{path}.{place}.")]
            assert names
            for name in names:
                assert torch.equal(student[name], teacher[name.replace(f"{path}.{place}.", f"{path}.{layer}.")])
    with pytest.raises(UserError, match=r"student\.decoder_layers is 5 and the teacher has 4"):
        start_student(architecture, tmp_path, layers=2, decoder_layers=5)


def test_qwens_layers_keep_their_kind_of_attention(tmp_path: Path) -> None:
    config = make_config("qwen2")
    config.layer_types = ["full_attention"] * 3 + ["sliding_attention"] * 3
    ARCHITECTURES["qwen2"].heads[pretraining_head("qwen2")].auto_class.from_config(config).save_pretrained(tmp_path)
    student = start_student("qwen2", tmp_path, layers=4)
    assert student.config.layer_types == ["full_attention"] * 2 + ["sliding_attention"] * 2
    student.save_pretrained(tmp_path / "student")


def test_gemmas_layers_keep_their_kind_of_attention_and_their_positions(tmp_path: Path) -> None:
    config = make_config("gemma3_text")
    config.layer_types = ["sliding_attention", "full_attention"] * 3
    config.sliding_window = 2
    teacher = ARCHITECTURES["gemma3_text"].heads[pretraining_head("gemma3_text")].auto_class.from_config(config)
    teacher.save_pretrained(tmp_path)
    student = start_student("gemma3_text", tmp_path, layers=3)
    # Layers 0, 2 and 5 of the teacher.
    assert student.config.layer_types == ["sliding_attention", "sliding_attention", "full_attention"]
    student.save_pretrained(tmp_path / "student")
    again = type(student).from_pretrained(tmp_path / "student")
    assert again.config.layer_types == student.config.layer_types
    ids = torch.arange(12)[None] % VOCABULARY
    # The teacher without its other layers says the same.
    teacher.model.layers = torch.nn.ModuleList(teacher.model.layers[layer] for layer in (0, 2, 5))
    teacher.config.layer_types = [teacher.config.layer_types[layer] for layer in (0, 2, 5)]
    teacher.config.num_hidden_layers = 3
    for place, layer in enumerate(teacher.model.layers):
        layer.self_attn.layer_idx = place
    expected = teacher(input_ids=ids, use_cache=False).logits
    student.config.sliding_window = again.config.sliding_window = 2
    torch.testing.assert_close(again(input_ids=ids, use_cache=False).logits, expected)


def test_modernberts_layers_keep_their_kind_of_attention(tmp_path: Path) -> None:
    teacher = save_teacher(tmp_path, "modernbert")
    student = start_student("modernbert", tmp_path, layers=4)
    kinds = teacher.config.layer_types
    assert student.config.layer_types == [kinds[layer] for layer in (0, 2, 3, 5)]
    assert student.config.layer_types == ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    assert student(input_ids=torch.ones(1, 4, dtype=torch.int64)).logits.isfinite().all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_random_weights_follow_the_seed(architecture: str) -> None:
    before = torch.get_rng_state()
    first, again, other = (start_student(architecture, None, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_head_that_the_teacher_lacks_follows_the_seed(tmp_path: Path) -> None:
    teacher = AutoModel.from_config(make_config("bert"))
    teacher.save_pretrained(tmp_path)
    first, again, other = (start_student("bert", tmp_path, seed=seed) for seed in (0, 0, 1))
    name = "cls.predictions.transform.dense.weight"
    assert torch.equal(first.get_parameter(name), again.get_parameter(name))
    assert not torch.equal(first.get_parameter(name), other.get_parameter(name))
    assert torch.equal(other.get_input_embeddings().weight, teacher.get_input_embeddings().weight)


def test_the_tie_survives(tmp_path: Path) -> None:
    save_teacher(tmp_path, "bert")
    student = start_student("bert", tmp_path)
    assert student.get_output_embeddings().weight is student.get_input_embeddings().weight


def test_a_projection_of_its_own_is_not_lost_in_a_t5(tmp_path: Path) -> None:
    # T5 1.1's files hold a projection besides the embeddings, and say so; transformers calls every T5 tied.
    teacher, projection_VD = save_teacher(tmp_path, "t5", layers=2), torch.randn(VOCABULARY, 8)
    save_file({**load_file(tmp_path / WEIGHTS), "lm_head.weight": projection_VD}, tmp_path / WEIGHTS)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["scale_decoder_outputs"]
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    student = start_student("t5", tmp_path, layers=2)
    assert torch.equal(student.get_input_embeddings().weight, teacher.get_input_embeddings().weight)
    assert torch.equal(student.get_output_embeddings().weight, projection_VD)
    student.save_pretrained(tmp_path / "student")
    opened = open_headed(tmp_path / "student", TARGET_TOKENS, VOCABULARY, device="cpu", attention="eager")
    assert torch.equal(opened.weight_VD, projection_VD)
    assert not opened.model.config.scale_decoder_outputs


def test_classes_and_dropout_reach_the_config(tmp_path: Path) -> None:
    save_teacher(tmp_path, "bert")
    for path in (None, tmp_path):
        student = start_student("bert", path, head=CLASSES, classes=4, dropout=0.3)
        assert student.config.num_labels == 4
        assert student.config.hidden_dropout_prob == 0.3
        assert not student.training


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"hidden_size": 16}, r"student\.hidden_size is 16 and the teacher's 8"),
        ({"heads": 1}, r"student\.heads is 1, which makes heads of 8, and the teacher's have 4"),
        ({"feed_forward": 16}, r"student\.feed_forward is 16 and the teacher's 12"),
        ({"layers": 7}, r"student\.layers is 7 and the teacher has 6"),
    ],
)
def test_other_sizes_than_the_teachers_are_refused_with_the_remedy(
    sizes: dict[str, int], message: str, tmp_path: Path
) -> None:
    save_teacher(tmp_path, "bert")
    with pytest.raises(UserError, match=message) as caught:
        start_student("bert", tmp_path, **sizes)
    assert "set student.initialisation to random" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert start_student("bert", None, **sizes)
