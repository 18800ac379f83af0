"""CTranslate2 as a runtime: its own token ids in and out. Imports neither torch nor transformers.

CTranslate2 speaks tokens, not ids; the vocabulary that lies beside the weights has a token for every id.
"""

import json
from pathlib import Path

import ctranslate2
import numpy as np
from numpy.typing import NDArray

from lightpaff.deployment.card import CARD, ExportCard
from lightpaff.deployment.runner import continue_by_length
from lightpaff.errors import UserError, one_line

_TOKENS_SCORED_TOGETHER = 1024
_NO_LIMIT = 0


class Ctranslate2TokenRunner:
    """A decoder that `export_ctranslate2` wrote (see `runner.TokenRunner`).

    Args:
        directory: the export.
        threads: for one batch; 0 is all cores.

    Raises:
        UserError: the directory holds no such export.
    """

    def __init__(self, directory: Path, threads: int = 0) -> None:
        self._tokens = _read_vocabulary(directory / "vocabulary.json")
        self._generator = _open(ctranslate2.Generator, directory, threads)

    def continue_prompts(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        """Exactly `new_tokens` more tokens for every prompt, the most likely each time, the end token among them."""
        # Beside a prompt of a single token, CTranslate2 repeats the longer ones' last tokens.
        return continue_by_length(prompts, lambda rows: self._continue(rows, new_tokens))

    def nll(self, rows: list[list[int]]) -> list[NDArray[np.float32]]:
        """-log P of every token of a row after its first, given those before it, in nats."""
        long_enough = [row for row in rows if len(row) > 1]
        results = iter(
            self._generator.score_batch(
                [[self._tokens[id_] for id_ in row] for row in long_enough],
                max_batch_size=max(_TOKENS_SCORED_TOGETHER, *(len(row) for row in rows), 0),
                batch_type="tokens",
                max_input_length=_NO_LIMIT,
            )
        )
        empty: list[float] = []
        return [-np.array(next(results).log_probs if len(row) > 1 else empty, dtype=np.float32) for row in rows]

    def _continue(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        results = self._generator.generate_batch(
            [[self._tokens[id_] for id_ in prompt] for prompt in prompts],
            beam_size=1,
            max_length=new_tokens,
            # None of them ends it. Least lengths would keep the end token out instead.
            end_token=[],
            include_prompt_in_result=False,
        )
        return [list(result.sequences_ids[0]) for result in results]


class Ctranslate2TextRunner:
    """An encoder-decoder that `export_ctranslate2` wrote (see `runner.TextRunner`).

    Args:
        directory: the export.
        threads: for one batch; 0 is all cores.

    Raises:
        UserError: the directory holds no such export.
    """

    def __init__(self, directory: Path, threads: int = 0) -> None:
        self._tokens = _read_vocabulary(directory / "shared_vocabulary.json")
        self._ids = {token: id_ for id_, token in enumerate(self._tokens)}
        self._translator = _open(ctranslate2.Translator, directory, threads)
        written = ExportCard.read(directory).first_written if (directory / CARD).is_file() else ""
        self._first_written = [written] if written else []

    def write(self, sources: list[list[int]], *, beams: int, length_penalty: float, max_tokens: int) -> list[list[int]]:
        """What it writes for each source by beam search, without the start token and the end token.

        The score is the sum of log P over length to the power of `length_penalty`, the end token counted, as in
        `lightpaff.evaluation.generation`. The search ends when there are as many ended texts as beams, where that of
        transformers goes on while a longer one may still win: seldom, it finds another text.
        """
        results = self._translator.translate_batch(
            [[self._tokens[id_] for id_ in source] for source in sources],
            [self._first_written] * len(sources) if self._first_written else None,
            beam_size=beams,
            length_penalty=length_penalty,
            max_decoding_length=max_tokens,
            min_decoding_length=0,
            max_input_length=_NO_LIMIT,
        )
        return [[self._ids[token] for token in result.hypotheses[0]] for result in results]


def _open(kind: type, directory: Path, threads: int) -> ctranslate2.Generator | ctranslate2.Translator:
    try:
        # Weights in bfloat16 are calculated with as float32 where the processor has nothing better.
        return kind(str(directory), device="cpu", compute_type="default", inter_threads=1, intra_threads=threads)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{directory}: CTranslate2 cannot open it ({one_line(error)}); export it anew") from error


def _read_vocabulary(path: Path) -> list[str]:
    try:
        tokens: list[str] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is no vocabulary of CTranslate2 ({one_line(error)}); export it anew") from error
    return tokens
