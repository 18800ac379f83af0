"""Which students a teacher could have: a small grid of layers and widths. Imports neither torch nor transformers."""

import math
from collections.abc import Iterator

from lightpaff.recipe_sections import Shape

_DEPTHS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
_WIDTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96)
"""In heads; finer steps than these change neither speed nor quality by much."""
_NARROWEST = 8
"""The teacher's hidden size over the smallest one."""


def list_shapes(teacher: Shape) -> list[Shape]:
    """The students that are worth a look, the smallest first; all their sizes are given.

    Heads are as wide as the teacher's, and the feed-forward size has the teacher's ratio to the hidden size. The
    decoder of an encoder-decoder is as deep as its encoder or shallower, since it is what generation waits for
    (Kasai et al. 2021, Deep Encoder, Shallow Decoder).

    Args:
        teacher: all its sizes are given, `decoder_layers` where it has a decoder beside its encoder.
    """
    assert teacher.hidden_size is not None
    assert teacher.heads is not None
    assert teacher.feed_forward is not None
    return [
        Shape(
            layers=layers,
            decoder_layers=decoder_layers,
            hidden_size=hidden_size,
            heads=hidden_size * teacher.heads // teacher.hidden_size,
            feed_forward=round(hidden_size * teacher.feed_forward / teacher.hidden_size),
        )
        for hidden_size in _list_widths(teacher.hidden_size, teacher.heads)
        for layers, decoder_layers in _list_depths(teacher)
    ]


def name_shape(shape: Shape) -> str:
    """3 x 512; of an encoder-decoder 6-2 x 512"""
    layers = f"{shape.layers}" if shape.decoder_layers is None else f"{shape.layers}-{shape.decoder_layers}"
    return f"{layers} \N{MULTIPLICATION SIGN} {shape.hidden_size}"


def _list_widths(hidden_size: int, heads: int) -> list[int]:
    """Multiples of what a whole number of heads needs, up to the teacher's own."""
    step = hidden_size // math.gcd(hidden_size, heads)
    widths = {step * number for number in _WIDTHS if hidden_size <= _NARROWEST * step * number}
    return sorted(width for width in widths | {hidden_size} if width <= hidden_size)


def _list_depths(teacher: Shape) -> Iterator[tuple[int, int | None]]:
    for layers in _depths_up_to(teacher.layers):
        if teacher.decoder_layers is None:
            yield layers, None
            continue
        fractions = {math.ceil(layers / part) for part in (1, 2, 3)} | {1}
        yield from ((layers, below) for below in sorted(fractions) if below <= teacher.decoder_layers)


def _depths_up_to(layers: int) -> list[int]:
    least = [1] if layers < 4 else []
    return sorted({*least, *(depth for depth in _DEPTHS if depth <= layers), layers})
