"""Tokenizers: opened, and compared token by token.

Teacher and student speak about the same classes only when every id means the same token to both.
"""

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from lightpaff.data.languages import has_own_languages, quiet_marian
from lightpaff.errors import UserError, one_line
from lightpaff.models.pieces import is_of_pieces, piece_ids, piece_models
from lightpaff.recipe_families import Family

_REQUIRED_TOKENS: dict[Family, tuple[str, ...]] = {
    "encoder": ("pad_token", "cls_token", "sep_token", "mask_token"),
    "decoder": ("eos_token",),
    "encoder-decoder": ("pad_token", "eos_token"),
}
# Besides the required ones; a decoder's padding is never looked at, so that it may differ.
_COMPARED_TOKENS: dict[Family, tuple[str, ...]] = {
    "encoder": ("unk_token",),
    "decoder": ("bos_token", "unk_token"),
    "encoder-decoder": ("bos_token", "unk_token", "mask_token"),
}
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.spm")
_SHOWN_DIFFERENCES = 3

# Upper case, accents, punctuation, digits and Chinese characters: what normalisers treat differently.
_PROBE_TEXT = "The Café isn't OPEN at 12:30, NAÏVE visitors;\tsay 北京 — or 100%…"


def load_tokenizer(path: Path, family: Family) -> PreTrainedTokenizerBase:
    """Open the tokenizer in a model's directory, without the network; it neither cuts nor pads unless asked.

    A tokenizer.json is best; vocab.txt, vocab.json with merges.txt, and SentencePiece's files are taken where
    transformers can make a fast tokenizer of them, and Marian's and M2M100's as they are.

    Raises:
        UserError: the directory or its tokenizer is missing or unreadable, has no fast version, or lacks a special
            token that the family needs: encoders pad, cls, sep and mask, decoders eos, encoder-decoders pad and eos.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such directory; give one that holds a model and its tokenizer")
    remedy = "give a model directory with its tokenizer.json"
    if not any(any(path.glob(name)) for name in _TOKENIZER_FILES):
        raise UserError(f"{path}: holds no tokenizer; {remedy}")
    is_sentencepiece = not (path / "tokenizer.json").is_file() and [*path.glob("*.spm"), *path.glob("*.model")]
    if is_sentencepiece and importlib.util.find_spec("sentencepiece") is None:
        raise UserError(
            f"{path}: its tokenizer is SentencePiece's, whose package is not installed: "
            f'pip install "lightpaff[sentencepiece]", or {remedy}'
        )
    try:
        with quiet_marian():
            tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True)
    # The tokenizers library raises bare Exception for a broken file.
    except Exception as error:
        raise UserError(f"{path}: its tokenizer cannot be read ({one_line(error)}); {remedy}") from error
    if getattr(tokenizer, "separate_vocabs", False):
        raise UserError(
            f"{path}: source and target have vocabularies of their own (separate_vocabs in its tokenizer_config.json); "
            "take a Marian with one for both"
        )
    if not (tokenizer.is_fast or is_of_pieces(tokenizer)):
        raise UserError(f"{path}: its tokenizer ({type(tokenizer).__name__}) has no fast version; {remedy}")
    if not ((path / "tokenizer.json").is_file() or _knows_its_languages(tokenizer)):
        raise UserError(
            f"{path}: transformers cannot number the languages of a {type(tokenizer).__name__} from its files; {remedy}"
        )
    missing = [name for name in _REQUIRED_TOKENS[family] if getattr(tokenizer, name) is None]
    if missing:
        raise UserError(f"{path}: its tokenizer has no {', '.join(missing)}; give one for the family {family}")
    if tokenizer.is_fast:
        # A tokenizer.json may hold the settings of its last use, which would go into fingerprints and exports.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> Any:
    """What fingerprints say of a tokenizer: its vocabulary and rules, whole, and which tokens mean what."""
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    special["inputs"] = " ".join(tokenizer.model_input_names)
    if tokenizer.is_fast:
        return {"rules": tokenizer.backend_tokenizer.to_str(), "special": special}
    models = [hashlib.sha256(model).hexdigest() for model in piece_models(tokenizer)]
    return {"pieces": models, "vocabulary": piece_ids(tokenizer), "special": special}


def compare_vocabularies(
    teacher: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase, names: tuple[str, str], family: Family
) -> None:
    """Make sure that both tokenizers give every id the same meaning and cut text alike.

    Args:
        teacher: the teacher's tokenizer.
        other: the one that has to agree.
        names: what to call the two in the message.
        family: says which special tokens have to agree.

    Raises:
        UserError: names the first differences and how many there are.
    """
    differences = _token_differences(teacher, other) + _special_differences(teacher, other, family)
    if not differences and _cut(teacher) != _cut(other):
        differences = ["the tokens are the same, but text is cut differently (lower case, accents or special tokens)"]
    if differences:
        first = "; ".join(differences[:_SHOWN_DIFFERENCES])
        raise UserError(
            f"{names[1]}: its vocabulary is not that of {names[0]}: {len(differences)} differences, first ({names[0]} "
            f"before {names[1]}): {first}; take models that share one tokenizer"
        )


def number_of_classes(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> int:
    """V of the heads that predict tokens: the tokenizer's ids; a padded output layer's rows beyond them are none.

    Raises:
        UserError: the model has fewer rows than the tokenizer has ids.
    """
    # Not len(): a vocabulary may have holes, and every id must be a class.
    known = piece_ids(tokenizer) if is_of_pieces(tokenizer) else tokenizer.get_vocab()
    ids: int = max(known.values()) + 1
    if config.vocab_size < ids:
        raise UserError(
            f"{config.name_or_path or config.model_type}: its vocab_size is {config.vocab_size}, "
            f"fewer than the tokenizer's {ids} tokens; take the tokenizer that came with the model"
        )
    return ids


def _knows_its_languages(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Made from SentencePiece's file alone, NLLB's may lack its languages, or have them behind the mask token, which is
    the last in all such models."""
    if is_of_pieces(tokenizer) or not has_own_languages(tokenizer):
        return True
    language = tokenizer.convert_tokens_to_ids(tokenizer.src_lang)
    mask = tokenizer.mask_token_id
    return bool(language != tokenizer.unk_token_id and (mask is None or language < mask))


def _cut(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    # verbose warns where a model's inputs are shorter.
    if has_own_languages(tokenizer):
        # Which ones are set makes no other tokenizer.
        ids: list[int] = tokenizer(_PROBE_TEXT, add_special_tokens=False, verbose=False)["input_ids"]
        return ids
    # Marian cuts targets in another way than sources.
    return [
        *tokenizer(_PROBE_TEXT, verbose=False)["input_ids"],
        *tokenizer(text_target=_PROBE_TEXT, verbose=False)["input_ids"],
    ]


def _token_differences(teacher: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> list[str]:
    teacher_tokens, other_tokens = ({id_: token for token, id_ in t.get_vocab().items()} for t in (teacher, other))
    return [
        f"id {id_} is {_shown(teacher_tokens.get(id_))} and {_shown(other_tokens.get(id_))}"
        for id_ in sorted(teacher_tokens.keys() | other_tokens.keys())
        if teacher_tokens.get(id_) != other_tokens.get(id_)
    ]


def _special_differences(teacher: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase, family: Family) -> list[str]:
    return [
        f"{name} is {_shown(getattr(teacher, name))} and {_shown(getattr(other, name))}"
        for name in (*_REQUIRED_TOKENS[family], *_COMPARED_TOKENS[family])
        if getattr(teacher, name) != getattr(other, name)
    ]


def _shown(token: str | None) -> str:
    return "nothing" if token is None else repr(token)
