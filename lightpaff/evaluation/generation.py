"""Text from a model: greedy or beam search over a batch, with nothing but what is asked for.

Ready-made models come with a generation configuration of their own: a least length, n-grams that must not come again,
tokens that are forced (BART's for summaries has all three). It is set aside here, so that teacher and student differ
in their weights only.

Shapes: B examples, S tokens of the input, T tokens of the output.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel


@dataclass(frozen=True)
class Search:
    """How texts are searched.

    Attributes:
        decoder_start_id: of an encoder-decoder, what its output starts from (the language, in a model of several);
            None for a decoder.
        max_new_tokens: the most new tokens of a row, the end token counted.
        first_written_id: of an encoder-decoder, the token that it has to write first (see `first_written_token`).
    """

    decoder_start_id: int | None
    end_id: int
    padding_id: int
    beams: int
    length_penalty: float
    max_new_tokens: int
    first_written_id: int | None = None


def generate(model: PreTrainedModel, inputs: dict[str, Tensor], search: Search) -> list[NDArray[np.int64]]:
    """Write on: each row's new token ids, up to and including the end token where it is reached.

    The most likely sequence that beam search finds, by the sum of log P over length to the power of `length_penalty`
    (Wu et al. 2016 without its constants); with one beam the most likely token each time. The padding token is never
    written, unless it is also the end token: in a Marian model nothing else keeps it out. Keys and values of earlier
    tokens are kept (`use_cache`). The model is put into evaluation mode.

    Args:
        inputs: `input_ids` and `attention_mask`, both B x S; for a decoder the prompts, padded on the left.
    """
    config = generation_settings(search)
    model.eval()
    with _only_this(model, config), torch.inference_mode():
        ids_BT = model.generate(**inputs, generation_config=config)
    known = inputs["input_ids"].shape[1] if search.decoder_start_id is None else 1
    return [_cut(ids_T, search.end_id) for ids_T in ids_BT[:, known:].cpu().numpy()]


def generation_settings(search: Search) -> GenerationConfig:
    """What `generate` asks of transformers; a model's directory may hold it too."""
    return GenerationConfig(
        do_sample=False,
        num_beams=search.beams,
        # transformers does not save settings of a search that is not done.
        **({"length_penalty": search.length_penalty, "early_stopping": False} if search.beams > 1 else {}),
        max_new_tokens=search.max_new_tokens,
        use_cache=True,
        decoder_start_token_id=search.decoder_start_id,
        forced_bos_token_id=search.first_written_id,
        eos_token_id=search.end_id,
        pad_token_id=search.padding_id,
        suppress_tokens=None if search.padding_id == search.end_id else [search.padding_id],
    )


@contextlib.contextmanager
def _only_this(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """Set the model's own configuration aside: transformers takes from it whatever ours leaves at None."""
    own = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = own


def _cut(ids_T: NDArray[np.int64], end_id: int) -> NDArray[np.int64]:
    """The ids without the padding behind them, which begins after the end token."""
    ends = np.flatnonzero(ids_T == end_id)
    return ids_T[: ends[0] + 1] if len(ends) else ids_T
