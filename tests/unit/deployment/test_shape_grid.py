from hypothesis import given
from hypothesis import strategies as st

from lightpaff.deployment.shape_grid import list_shapes, name_shape
from lightpaff.recipe_sections import Shape

BERT_BASE = Shape(layers=12, hidden_size=768, heads=12, feed_forward=3072)
MASS = Shape(layers=6, decoder_layers=6, hidden_size=1024, heads=16, feed_forward=4096)


def test_students_of_bert_base() -> None:
    shapes = list_shapes(BERT_BASE)
    assert Shape(layers=3, hidden_size=512, heads=8, feed_forward=2048) in shapes
    assert BERT_BASE in shapes
    assert {shape.layers for shape in shapes} == {2, 3, 4, 6, 8, 12}
    assert {shape.hidden_size for shape in shapes} == {128, 192, 256, 320, 384, 512, 640, 768}
    assert len(set(shapes)) == len(shapes) == 48


def test_uneven_depths_of_an_encoder_decoder() -> None:
    depths = {(shape.layers, shape.decoder_layers) for shape in list_shapes(MASS)}
    assert depths == {(2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (4, 1), (4, 2), (4, 4), (6, 1), (6, 2), (6, 3), (6, 6)}
    assert name_shape(MASS) == "6-6 × 1024"


@given(
    layers=st.integers(1, 40),
    decoder_layers=st.none() | st.integers(1, 40),
    heads=st.integers(1, 40),
    hidden_size=st.integers(4, 400).map(lambda number: 8 * number),
)
def test_every_student_is_within_the_teacher(
    layers: int, decoder_layers: int | None, heads: int, hidden_size: int
) -> None:
    # Heads need not divide the hidden size: Flan-T5's do not.
    teacher = Shape(
        layers=layers, decoder_layers=decoder_layers, hidden_size=hidden_size, heads=heads, feed_forward=3 * hidden_size
    )
    shapes = list_shapes(teacher)
    assert len(set(shapes)) == len(shapes) > 0
    sizes = [(shape.layers, shape.decoder_layers or 0, shape.hidden_size or 0) for shape in shapes]
    smallest = tuple(min(column) for column in zip(*sizes, strict=True))
    assert smallest in sizes
    for shape in shapes:
        assert shape.hidden_size is not None
        assert shape.heads is not None
        assert 1 <= shape.layers <= layers
        assert (shape.decoder_layers is None) == (decoder_layers is None)
        assert (shape.decoder_layers or 0) <= min(decoder_layers or 0, shape.layers)
        # The teacher's head size, exactly.
        assert shape.heads * hidden_size == shape.hidden_size * heads
        assert shape.feed_forward == 3 * shape.hidden_size
