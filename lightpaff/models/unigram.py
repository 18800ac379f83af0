"""SentencePiece's Unigram (Kudo 2018, section 3.2) that writes unknown characters as bytes, for encoder-decoders.

The pieces are learnt by the package sentencepiece, which gives the same ones in every process; the tokenizers library's
own trainer does not. Tokenizers that were trained here do without the package.
"""

import io
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from types import ModuleType

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from lightpaff.errors import UserError
from lightpaff.models.alphabet import EMPTY_CORPUS, choose_alphabet, cut_texts
from lightpaff.models.byte_fallback import (
    BYTES,
    SPACE,
    SPECIAL_TOKENS,
    assemble_tokenizer,
    language_tokens,
    room_for_pieces,
)
from lightpaff.recipe_sections import FromScratch

# Special tokens, languages and bytes begin with it, and Unigram would find them in texts like other pieces.
_OPENING = "<"

# SentencePiece needs these for itself: the end of a text, and what it writes for spaces and for unknown characters.
_RESERVED = ("\x00", SPACE, "▅")

# In characters; the longest row of all is two of them.
_LONGEST_PART = 1000


def train_unigram(
    texts: Iterator[str], from_scratch: FromScratch, lowercase: bool, languages: Sequence[str] = ()
) -> Tokenizer:
    """Train Unigram with marked spaces; every text ends in `</s>`, and decoding is as byte fallback's.

    The pieces are learnt from the counts of the words, sorted: the order of the texts makes no difference. All
    different words are in memory at once; in languages without spaces that is the whole corpus.

    Raises:
        UserError: the package sentencepiece is missing, the texts hold no character, or the vocabulary has no room for
            pieces.
    """
    library = _import_sentencepiece()
    special = [*SPECIAL_TOKENS.values(), *language_tokens(languages)]
    room = room_for_pieces(from_scratch.vocabulary_size, special)
    folding = normalizers.Lowercase() if lowercase else None
    words = _count_words(texts, folding)
    # Half of the room is for characters, half for longer pieces.
    parts = _cut_words(words, _choose_characters(words, room // 2))
    pieces = [*((token, 0.0) for token in (*special, *BYTES)), *_learn_pieces(library, parts, room)]
    model = models.Unigram(pieces, unk_id=special.index(SPECIAL_TOKENS["unk_token"]), byte_fallback=True)
    tokenizer = assemble_tokenizer(model, special, folding)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [tokenizer.pre_tokenizer, pre_tokenizers.Split(_OPENING, "isolated")]
    )
    return tokenizer


def _import_sentencepiece() -> ModuleType:
    try:
        import sentencepiece
    except ImportError as error:
        raise UserError(
            "teacher.from_scratch.tokenizer: is unigram, which is trained by the package sentencepiece; "
            "pip install lightpaff[unigram], or leave it out"
        ) from error
    return sentencepiece


def _count_words(texts: Iterator[str], folding: normalizers.Normalizer | None) -> Counter[str]:
    words: Counter[str] = Counter()
    for text in cut_texts(texts):
        composed = unicodedata.normalize("NFC", text)
        words.update((folding.normalize_str(composed) if folding else composed).split())
    return words


def _choose_characters(words: Counter[str], room: int) -> list[str]:
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    for reserved in _RESERVED:
        del counts[reserved]
    if not counts:
        raise UserError(EMPTY_CORPUS)
    return choose_alphabet(counts, room)


def _cut_words(words: Counter[str], alphabet: list[str]) -> Counter[str]:
    """The parts of the words that pieces may come from, each with its space before it, and their counts.

    A character outside the alphabet and `<` end a part.
    """
    known = {" ", *alphabet}
    parts: Counter[str] = Counter()
    for word, count in words.items():
        kept = "".join(character if character in known else "\n" for character in f" {word}")
        for part in kept.replace(_OPENING, f"\n{_OPENING}\n").split("\n"):
            for start in range(0, len(part), _LONGEST_PART):
                parts[part[start : start + _LONGEST_PART]] += count
    return parts


def _write_rows(parts: Counter[str]) -> Iterator[str]:
    """SentencePiece's rows: a text, a tab and how often it occurs.

    It looks for pieces where what follows differs, and never at the end of every row: a word that was always one would
    not be found as a whole. So every frequent word stands once before and once after another, and else by itself.
    """
    frequent = sorted(part for part, count in parts.items() if count > 1 and part.startswith(" "))
    for first, second in zip(frequent, [*frequent[1:], *frequent[:1]], strict=True):
        yield f"{first}{second}\t1"
    left = parts - Counter(dict.fromkeys(frequent, 2))
    yield from (f"{part}\t{count}" for part, count in sorted(left.items()))


def _learn_pieces(library: ModuleType, parts: Counter[str], size: int) -> list[tuple[str, float]]:
    """At most `size` pieces and their log probabilities, the likeliest first; every character of the parts is one."""
    written = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=_write_rows(parts),
        model_writer=written,
        input_format="tsv",
        model_type="unigram",
        # Its own unknown piece is one more.
        vocab_size=size + 1,
        hard_vocab_limit=False,
        # In bytes; it skips what is longer.
        max_sentence_length=10 * _LONGEST_PART,
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        # Sums of several threads would depend on how many there are.
        num_threads=1,
        minloglevel=2,
    )
    trained = library.SentencePieceProcessor(model_proto=written.getvalue())
    return [(trained.id_to_piece(id_), trained.get_score(id_)) for id_ in range(1, trained.get_piece_size())]
