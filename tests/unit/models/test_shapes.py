from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import AutoConfig, PreTrainedTokenizerFast

from lightpaff.errors import UserError
from lightpaff.models import encoder
from lightpaff.models.architecture import MASKED_TOKENS, NEXT_TOKENS, TARGET_TOKENS
from lightpaff.models.families import ARCHITECTURES
from lightpaff.models.opening import NAMED_CLASSES
from lightpaff.models.shapes import (
    config_identity,
    count_parameters,
    forward_flops_per_token,
    longest_input,
    scratch_config,
    shape_of,
    student_config,
    training_flops_per_token,
)
from lightpaff.recipe_sections import FromScratch, Shape

VOCABULARY = 101
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(VOCABULARY - 5))]


def make_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {token: id_ for id_, token in enumerate(TOKENS)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]")),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
    )


def make_teacher(architecture: str, **sizes: int) -> Any:
    given = {"layers": 6, "hidden_size": 32, "heads": 4, "feed_forward": 96, "max_length": 16, **sizes}
    return scratch_config(FromScratch.model_validate({"architecture": architecture, **given}), make_tokenizer())


def has_decoder(architecture: str) -> bool:
    return bool(ARCHITECTURES[architecture].sizes.decoder_layers)


HEADS = [(architecture, head) for architecture, known in ARCHITECTURES.items() for head in known.heads]


def sizes_of(shape: Shape) -> tuple[int | None, ...]:
    return shape.layers, shape.hidden_size, shape.heads, shape.feed_forward


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sizes_left_out_are_the_teachers(architecture: str) -> None:
    teacher = make_teacher(architecture)
    before = teacher.to_dict()
    assert sizes_of(shape_of(student_config(teacher, Shape(layers=3)))) == (3, 32, 4, 96)
    assert teacher.to_dict() == before


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_place_of_a_config_is_not_its_identity(architecture: str, tmp_path: Path) -> None:
    config = make_teacher(architecture)
    read = []
    for name in ("here", "there"):
        config.save_pretrained(tmp_path / name)
        read.append(AutoConfig.from_pretrained(tmp_path / name))
    assert read[0].name_or_path != read[1].name_or_path
    assert config_identity(read[0]) == config_identity(read[1])
    read[1].transformers_version = "0.0"
    assert config_identity(read[0]) == config_identity(read[1])
    read[1].vocab_size += 1
    assert config_identity(read[0]) != config_identity(read[1])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_narrower_student_keeps_head_size_and_ratio(architecture: str) -> None:
    student = student_config(make_teacher(architecture), Shape(layers=2, hidden_size=16))
    assert sizes_of(shape_of(student)) == (2, 16, 2, 48)
    assert student.vocab_size == VOCABULARY


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_given_sizes_win(architecture: str) -> None:
    shape = Shape(layers=1, hidden_size=24, heads=6, feed_forward=10)
    assert sizes_of(shape_of(student_config(make_teacher(architecture), shape))) == (1, 24, 6, 10)


# No deadline: building a model takes its time on a busy machine.
@settings(deadline=None, max_examples=25)
@given(layers=st.integers(1, 9), heads=st.integers(1, 6), head_size=st.integers(1, 4).map(lambda half: 2 * half))
def test_every_consistent_shape_is_taken(layers: int, heads: int, head_size: int) -> None:
    shape = Shape(layers=layers, hidden_size=heads * head_size, heads=heads)
    for architecture in ("bert", "modernbert"):
        student = student_config(make_teacher(architecture), shape)
        assert count_parameters(student, MASKED_TOKENS, VOCABULARY).total > 0


def test_heads_have_to_divide_the_hidden_size() -> None:
    with pytest.raises(UserError, match=r"student\.heads is 5, which does not divide the hidden size 32"):
        student_config(make_teacher("bert"), Shape(layers=1, heads=5))


def test_a_hidden_size_that_breaks_the_head_size_asks_for_heads() -> None:
    with pytest.raises(UserError, match=r"hidden_size is 20, no multiple of the teacher's head size 8; set student\.h"):
        student_config(make_teacher("bert"), Shape(layers=1, hidden_size=20))


def test_rotary_embeddings_need_even_heads() -> None:
    shape = Shape(layers=1, hidden_size=12, heads=4)
    with pytest.raises(UserError, match=r"student\.heads is 4, which makes heads of 3"):
        student_config(make_teacher("modernbert"), shape)
    assert shape_of(student_config(make_teacher("bert"), shape)).heads == 4


def test_electras_embedding_size_follows_only_where_it_did() -> None:
    teacher = make_teacher("electra")
    assert student_config(teacher, Shape(layers=1, hidden_size=16)).embedding_size == 16
    teacher.embedding_size = 8
    assert student_config(teacher, Shape(layers=1, hidden_size=16)).embedding_size == 8


@pytest.mark.parametrize("architecture", [*filter(has_decoder, ARCHITECTURES)])
def test_a_decoder_has_as_many_layers_as_the_encoder_unless_given(architecture: str) -> None:
    teacher = make_teacher(architecture, decoder_layers=2)
    layers = [
        (shape.layers, shape.decoder_layers)
        for shape in (
            shape_of(make_teacher(architecture)),
            shape_of(teacher),
            shape_of(student_config(teacher, Shape(layers=3))),
            shape_of(student_config(teacher, Shape(layers=3, decoder_layers=1))),
        )
    ]
    assert layers == [(6, 6), (6, 2), (3, 3), (3, 1)]


def test_a_feed_forward_size_that_is_left_out_is_four_times_the_hidden_size() -> None:
    teacher = make_teacher("gpt2")
    teacher.n_inner = None
    assert shape_of(teacher).feed_forward == 4 * 32
    assert student_config(teacher, Shape(layers=1, hidden_size=16)).n_inner == 4 * 16


def test_heads_that_do_not_fill_the_hidden_size_are_kept() -> None:
    # As in T5 1.1's small model: 6 heads of 64 in a hidden size of 512.
    teacher = AutoConfig.for_model("t5", d_model=512, num_heads=6, d_kv=64, d_ff=1024, num_layers=8)
    same, half = (student_config(teacher, Shape(layers=2, hidden_size=size)) for size in (None, 256))
    assert (same.d_model, same.num_heads, same.d_kv) == (512, 6, 64)
    assert (half.d_model, half.num_heads) == (256, 3)
    with pytest.raises(UserError, match=r"student\.heads is 5"):
        student_config(teacher, Shape(layers=2, heads=5))


@pytest.mark.parametrize("layers", [1, 2, 4, 6, 8])
def test_modernberts_kinds_of_layers_follow_its_layers(layers: int) -> None:
    pattern = ["full_attention", "sliding_attention", "sliding_attention"] * 3
    assert student_config(make_teacher("modernbert"), Shape(layers=layers)).layer_types == pattern[:layers]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_student_config_survives_saving(architecture: str, tmp_path: Any) -> None:
    student = student_config(make_teacher(architecture), Shape(layers=2, hidden_size=16))
    student.save_pretrained(tmp_path)
    assert sizes_of(shape_of(AutoConfig.from_pretrained(tmp_path))) == (2, 16, 2, 48)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_teacher_from_nothing_has_the_tokenizers_ids(architecture: str) -> None:
    config = make_teacher(architecture)
    assert sizes_of(shape_of(config)) == (6, 32, 4, 96)
    assert (config.vocab_size, config.pad_token_id) == (VOCABULARY, 0)
    assert longest_input(config) == (None if architecture in ("t5", "mt5") else 16)
    assert getattr(config, "max_position_embeddings", None) == {
        "roberta": 17,
        "xlm-roberta": 17,
        "camembert": 17,
        "mpnet": 18,
        "t5": None,
        "mt5": None,
    }.get(architecture, 16)
    if architecture in ("roberta", "xlm-roberta", "camembert", "mpnet", "modernbert"):
        assert (config.bos_token_id, config.eos_token_id) == (2, 3)


def test_a_teacher_from_nothing_needs_heads_that_divide() -> None:
    with pytest.raises(UserError, match=r"teacher\.from_scratch\.heads is 5"):
        make_teacher("bert", heads=5)


@pytest.mark.parametrize(("architecture", "head"), HEADS)
def test_parameters_are_those_of_the_built_model(architecture: str, head: str) -> None:
    config = make_teacher(architecture, layers=2)
    classes = 3 if head in NAMED_CLASSES else VOCABULARY
    count = count_parameters(config, head, classes)
    if head in NAMED_CLASSES:
        config.num_labels = classes
    model = ARCHITECTURES[architecture].heads[head].auto_class.from_config(config)
    # mT5's projection is its own, which transformers does not say.
    assert count.total == model.num_parameters() + (VOCABULARY * 32 if architecture == "mt5" else 0)
    assert 0 < count.embeddings < count.total
    # Layers are all alike, and nothing else grows with their number.
    more = count_parameters(make_teacher(architecture, layers=3), head, classes)
    assert more.total - count.total == count.layers / 2 == more.layers / 3 or architecture == "modernbert"
    assert count.layers + count.embeddings <= count.total


def test_a_t5_1_1_counts_its_own_projection(tmp_path: Path) -> None:
    config = make_teacher("t5", layers=2)
    tied = count_parameters(config, TARGET_TOKENS, VOCABULARY)
    config.scale_decoder_outputs = False
    own = count_parameters(config, TARGET_TOKENS, VOCABULARY)
    assert (own.total - tied.total, own.embeddings, own.layers) == (VOCABULARY * 32, tied.embeddings, tied.layers)
    config.save_pretrained(tmp_path)
    assert count_parameters(AutoConfig.from_pretrained(tmp_path), TARGET_TOKENS, VOCABULARY) == own


def test_parameters_of_bert_by_hand() -> None:
    count = count_parameters(make_teacher("bert", layers=2), MASKED_TOKENS, VOCABULARY)
    layer = 4 * (32 * 32 + 32) + (32 * 96 + 96) + (96 * 32 + 32) + 2 * 2 * 32
    assert count.embeddings == (VOCABULARY + 16 + 2) * 32
    assert count.layers == 2 * layer
    trunk = 2 * layer + 2 * 32
    head = (32 * 32 + 32) + 2 * 32 + VOCABULARY
    assert count.total == count.embeddings + trunk + head


def test_both_sides_of_an_encoder_decoder_share_one_embedding_table() -> None:
    count = count_parameters(make_teacher("t5", layers=1), TARGET_TOKENS, VOCABULARY)
    buckets_of_both_sides = 2 * 32 * 4
    assert count.embeddings == VOCABULARY * 32 + buckets_of_both_sides


def test_flops_of_bert_by_hand() -> None:
    config = make_teacher("bert", layers=2)
    attention, rest = 3 * 32 * 32, 32 * 32 + 2 * 32 * 96
    # After its attention the last layer works at the targets only, like the head.
    weights = 2 * attention + rest + 0.25 * (rest + 32 * 32 + 32 * VOCABULARY)
    expected = 6 * weights + 12 * 2 * 32 * 16
    lengths: dict[str, Any] = {"sequence_length": 16, "target_share": 0.25}
    assert training_flops_per_token(config, MASKED_TOKENS, VOCABULARY, **lengths) == expected
    assert forward_flops_per_token(config, MASKED_TOKENS, VOCABULARY, **lengths) == expected / 3


def test_flops_of_gpt2_by_hand() -> None:
    config = make_teacher("gpt2", layers=2)
    weights = 2 * (4 * 32 * 32 + 2 * 32 * 96) + 0.5 * 32 * VOCABULARY
    found = training_flops_per_token(config, NEXT_TOKENS, VOCABULARY, sequence_length=16, target_share=0.5)
    assert found == 6 * weights + 12 * 2 * 32 * 16


def test_a_frozen_output_layer_gets_no_gradient() -> None:
    config = make_teacher("gpt2", layers=2)
    shape: dict[str, Any] = {"sequence_length": 16, "target_share": 0.5}
    trained, frozen = (
        training_flops_per_token(config, NEXT_TOKENS, VOCABULARY, **shape, freeze_embeddings=answer)
        for answer in (False, True)
    )
    assert trained - frozen == pytest.approx(2 * 0.5 * 32 * VOCABULARY)


def test_flops_of_an_encoder_decoder_by_hand() -> None:
    config = make_teacher("bart", layers=3, decoder_layers=2)
    encoder_weights = 3 * (4 * 32 * 32 + 2 * 32 * 96)
    decoder_weights = 2 * (8 * 32 * 32 + 2 * 32 * 96)
    weights = 0.75 * encoder_weights + 0.25 * (decoder_weights + 32 * VOCABULARY)
    found = training_flops_per_token(config, TARGET_TOKENS, VOCABULARY, sequence_length=16, target_share=0.25)
    assert found == 6 * weights + 12 * (0.75 * 3 + 0.25 * 2) * 32 * 16


@pytest.mark.parametrize("architecture", encoder.ARCHITECTURES)
def test_flops_grow_with_the_share_of_targets_by_what_works_at_them_alone(architecture: str) -> None:
    config = make_teacher(architecture)
    none, half, all_ = (
        training_flops_per_token(config, MASKED_TOKENS, VOCABULARY, sequence_length=16, target_share=share)
        for share in (0.0, 0.5, 1.0)
    )
    outputs = {"modernbert": 0, "mpnet": 2 * 32 * 96, "distilbert": 2 * 32 * 96}.get(
        architecture, 32 * 32 + 2 * 32 * 96
    )
    assert all_ - none == 6 * (outputs + 32 * 32 + 32 * VOCABULARY)
    assert half - none == (all_ - none) / 2
