"""The three families of models, and which words of a recipe go with each.

Imports neither torch nor transformers, so that the command line answers at once.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from lightpaff.runtimes import RUNTIMES, Format, Work, runtimes_for

Family = Literal["encoder", "decoder", "encoder-decoder"]

Encoder = Literal[
    "bert", "roberta", "xlm-roberta", "camembert", "mpnet", "deberta-v2", "electra", "distilbert", "modernbert"
]
Decoder = Literal["gpt2", "llama", "qwen2", "qwen3", "mistral", "gemma3_text", "gpt_neox"]
EncoderDecoder = Literal["bart", "mbart", "marian", "m2m_100", "t5", "mt5"]
"""Architectures, by their model_type in transformers."""


@dataclass(frozen=True)
class FamilyWords:
    """Which words of a recipe go with a family."""

    architectures: tuple[str, ...]
    pretraining: str
    tasks: tuple[str, ...]
    work: Work

    @property
    def exports(self) -> list[Format]:
        """The formats that take its models."""
        return [RUNTIMES[runtime].format for runtime in runtimes_for(self.work)]


FAMILIES: dict[Family, FamilyWords] = {
    "encoder": FamilyWords(get_args(Encoder), "mlm", ("classify", "regress", "tag", "answer"), "classes"),
    "decoder": FamilyWords(get_args(Decoder), "clm", ("clm",), "next_tokens"),
    "encoder-decoder": FamilyWords(get_args(EncoderDecoder), "mssm", ("translate",), "target_tokens"),
}
