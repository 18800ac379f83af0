"""What the objectives must know of the models: the tokens, and what the models take besides them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that teacher and students share.

    Attributes:
        tokenizer: teacher's and students'.
        size: V of every head that predicts tokens, without padded rows.
        has_segments: a model of the run tells two sentences apart (`token_type_ids`).
        decoder_start_id: what a decoder reads first where no language says otherwise; None without a decoder.
    """

    tokenizer: "PreTrainedTokenizerBase"
    size: int
    has_segments: bool = False
    decoder_start_id: int | None = None

    @property
    def padding_id(self) -> int:
        """Of the padding token; where there is none (GPT-2), of the end of the text: it is never looked at."""
        tokenizer = self.tokenizer
        found = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        return int(found)
