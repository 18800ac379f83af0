"""Byte pair encoding over bytes, for decoders (Radford et al. 2019, section 2.2): it loses nothing of any text."""

from collections.abc import Iterator, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import Qwen2Tokenizer

from lightpaff.errors import UserError
from lightpaff.models.alphabet import cut_texts
from lightpaff.recipe_sections import FromScratch

END_OF_TEXT = "<|endoftext|>"
# GPT-2 has none, but batches of different lengths need one that is not also a target.
PADDING = "<|padding|>"
SPECIAL_TOKENS = {
    "bos_token": END_OF_TEXT,
    "eos_token": END_OF_TEXT,
    "unk_token": END_OF_TEXT,
    "pad_token": PADDING,
}
"""By use; the ids of the two are 0 and 1."""

_LEAST_PIECE_COUNT = 2


def train_byte_level(
    texts: Iterator[str], from_scratch: FromScratch, lowercase: bool, languages: Sequence[str] = ()
) -> Tokenizer:
    """Train byte-level BPE, cut as GPT-2's; decoders have no tokens for languages.

    Only qwen2's composes characters (Unicode's NFC) and cuts in another way.

    The pieces are learnt from counts, and ties fall to the lower id: where all bytes are numbered beforehand, the same
    texts give the same tokenizer in any order.

    Raises:
        UserError: the texts hold nothing but space, lower case is asked for, or the bytes alone are more tokens than
            there is room for.
    """
    key = "teacher.from_scratch"
    if lowercase:
        raise UserError(f"{key}.lowercase: is true, but a decoder's tokenizer keeps every text whole; leave it out")
    special = [END_OF_TEXT, PADDING]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    size, least = from_scratch.vocabulary_size, len(special) + len(alphabet)
    if size < least:
        raise UserError(
            f"{key}.vocabulary_size: is {size}, but a decoder's tokenizer has a token for every byte; "
            f"make it at least {least}"
        )
    tokenizer = _make_untrained(from_scratch.architecture)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=_LEAST_PIECE_COUNT,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(cut_texts(texts), trainer)
    return tokenizer


def _make_untrained(architecture: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    if architecture == "qwen2":
        # Beside a config of this model type, transformers opens every vocabulary with its own rules.
        own = Qwen2Tokenizer().backend_tokenizer
        tokenizer.normalizer, tokenizer.pre_tokenizer = own.normalizer, own.pre_tokenizer
    return tokenizer
