"""A transformers directory in PyTorch: what exported models are measured against, and checked with.

Shapes: B rows, S tokens, T new tokens, V classes.
"""

import contextlib
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from lightpaff.deployment.card import CARD, ExportCard
from lightpaff.deployment.pieces import PIECES, PieceTokenizer
from lightpaff.deployment.runner import Ids
from lightpaff.errors import UserError
from lightpaff.evaluation.generation import Search, generate
from lightpaff.models.architecture import NEXT_TOKENS, TARGET_TOKENS
from lightpaff.models.encoder import logits_of, without_unknown_segments
from lightpaff.models.opening import NAMED_CLASSES, finetuned_head, open_headed, read_config

Precision = Literal["float32", "bf16"]
"""Of the arithmetic: bf16 is autocast. An export in bf16 has weights of bf16, as transformers opens it, and neither."""


class PyTorchClassRunner:
    """A classifier, scorer, tagger or extractor of answers; a model without such a head gets one that classifies, at
    random.

    Args:
        directory: written by `save_pretrained`, of an architecture that lightpaff knows.
        threads: of this whole process; 0 leaves them as they are, all cores as a rule.
        precision: of the arithmetic; the weights are float32, but for those of an export in bf16.

    Raises:
        UserError: the directory holds no such model.
    """

    def __init__(self, directory: Path, threads: int = 0, precision: Precision = "float32") -> None:
        self._model, self._precision = _open(directory, finetuned_head(read_config(directory)), threads, precision)

    def logits(self, ids_BS: Ids, mask_BS: Ids, segments_BS: Ids | None = None) -> NDArray[np.float32]:
        """See `ClassRunner`."""
        inputs = {"input_ids": torch.from_numpy(ids_BS), "attention_mask": torch.from_numpy(mask_BS)}
        if segments_BS is not None:
            inputs["token_type_ids"] = torch.from_numpy(segments_BS)
        with torch.inference_mode(), _arithmetic(self._precision):
            return _as_array(logits_of(self._model(**without_unknown_segments(self._model, inputs))))


class PyTorchTokenRunner:
    """A decoder; the arguments are those of `PyTorchClassRunner`."""

    def __init__(self, directory: Path, threads: int = 0, precision: Precision = "float32") -> None:
        self._model, self._precision = _open(directory, NEXT_TOKENS, threads, precision)
        # transformers takes what a call leaves open, such as the end token, from here.
        self._model.generation_config = GenerationConfig()

    def continue_prompts(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        """See `TokenRunner`; all prompts are one batch."""
        inputs = _padded(prompts, on_the_left=True)
        # No end token, so nothing is padded; the padding token only silences a warning.
        config = GenerationConfig(do_sample=False, max_new_tokens=new_tokens, use_cache=True, pad_token_id=0)
        with torch.inference_mode(), _arithmetic(self._precision):
            ids_BT = self._model.generate(**inputs, generation_config=config)
        new: list[list[int]] = ids_BT[:, inputs["input_ids"].shape[1] :].tolist()
        return new

    def nll(self, rows: list[list[int]]) -> list[NDArray[np.float32]]:
        """See `TokenRunner`; one row at a time."""
        with torch.inference_mode(), _arithmetic(self._precision):
            return [self._nll_of_row(torch.tensor(row)) for row in rows]

    def _nll_of_row(self, ids_S: Tensor) -> NDArray[np.float32]:
        logits_SV = self._model(ids_S[None], use_cache=False).logits[0, :-1].float()
        return _as_array(torch.nn.functional.cross_entropy(logits_SV, ids_S[1:], reduction="none"))


class PyTorchTextRunner:
    """An encoder-decoder; the arguments are those of `PyTorchClassRunner`.

    Its output starts with the tokens that the export's card names, or with those of the model's config.

    Raises:
        UserError: there is neither.
    """

    def __init__(self, directory: Path, threads: int = 0, precision: Precision = "float32") -> None:
        self._model, self._precision = _open(directory, TARGET_TOKENS, threads, precision)
        self._start_id, self._first_written_id = _first_ids(directory, self._model)

    def write(self, sources: list[list[int]], *, beams: int, length_penalty: float, max_tokens: int) -> list[list[int]]:
        """See `TextRunner`; all sources are one batch. `max_tokens` counts the end token."""
        search = Search(
            decoder_start_id=self._start_id,
            end_id=self._model.config.eos_token_id,
            padding_id=self._model.config.pad_token_id,
            beams=beams,
            length_penalty=length_penalty,
            max_new_tokens=max_tokens,
            first_written_id=self._first_written_id,
        )
        with _arithmetic(self._precision):
            rows = generate(self._model, _padded(sources, padding_id=search.padding_id), search)
        return [[int(id_) for id_ in row if id_ != search.end_id] for row in rows]


def _open(directory: Path, head: str, threads: int, precision: Precision) -> tuple[PreTrainedModel, Precision]:
    """The model, and the arithmetic that is left to ask for."""
    if threads:
        torch.set_num_threads(threads)
    config = read_config(directory)
    classes = config.num_labels if head in NAMED_CLASSES else config.vocab_size
    model = open_headed(directory, head, classes, device="cpu", attention="sdpa").model.eval()
    card = _card_of(directory)
    return (model.to(torch.bfloat16), "float32") if card and card.quantisation == "bf16" else (model, precision)


def _card_of(directory: Path) -> ExportCard | None:
    return ExportCard.read(directory) if (directory / CARD).is_file() else None


def _first_ids(directory: Path, model: PreTrainedModel) -> tuple[int, int | None]:
    """What the decoder reads first, and what it then has to write."""
    card = _card_of(directory)
    if card is not None and card.decoder_start:
        of_pieces = card.tokenizer == PIECES
        tokenizer = PieceTokenizer(directory) if of_pieces else Tokenizer.from_file(str(directory / card.tokenizer))
        start = tokenizer.token_to_id(card.decoder_start)
        written = tokenizer.token_to_id(card.first_written) if card.first_written else None
    else:
        start, written = model.generation_config.decoder_start_token_id, model.generation_config.forced_bos_token_id
    if start is None:
        raise UserError(
            f"{directory}: does not say with which token its decoder starts; set decoder_start_token_id in config.json"
        )
    return int(start), written


def _padded(rows: list[list[int]], padding_id: int = 0, on_the_left: bool = False) -> dict[str, Tensor]:
    width = max(map(len, rows))
    ids_BS = torch.full((len(rows), width), padding_id)
    mask_BS = torch.zeros_like(ids_BS)
    for row, ids in enumerate(rows):
        place = slice(width - len(ids), width) if on_the_left else slice(len(ids))
        ids_BS[row, place], mask_BS[row, place] = torch.tensor(ids), 1
    return {"input_ids": ids_BS, "attention_mask": mask_BS}


def _arithmetic(precision: Precision) -> contextlib.AbstractContextManager[object]:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")


def _as_array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.float().numpy()
    return array
