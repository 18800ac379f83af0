"""Masked language modelling (BERT; Devlin et al. 2019, section 3.1): the paper's pre-training objective for encoders.

Shapes: B examples, S tokens, P target positions.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from lightpaff.data.corpus import Arrangement, pack_with_separators
from lightpaff.data.draws import content_keys, generator
from lightpaff.data.token_table import TokenTable
from lightpaff.objectives.batch import Batch
from lightpaff.objectives.objective import Objective
from lightpaff.objectives.padding import pad_tokens
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.recipe_sections import Pretraining

_MASKED_SHARE = 0.8
_RANDOM_SHARE = 0.1

draws_anew = True


def arrange(pretraining: Pretraining, vocabulary: Vocabulary) -> Arrangement:
    """Clean texts packed into sequences of one length (RoBERTa's full sentences; Liu et al. 2019, section 4.2)."""
    lay_out = partial(pack_with_separators, tokenizer=vocabulary.tokenizer, sequence_length=pretraining.sequence_length)
    return Arrangement(
        whole_documents=False, columns={}, lay_out=lambda texts, facts: lay_out(texts=texts, facts=facts)
    )


def open_corpus(path: Path, pretraining: Pretraining, vocabulary: Vocabulary, seed: int) -> Objective:
    """The objective over the packed sequences in an Arrow file."""
    tokenizer = vocabulary.tokenizer
    return MaskedLanguageModelling(
        TokenTable(path),
        special_ids=tokenizer.all_special_ids,
        mask_id=tokenizer.mask_token_id,
        padding_id=vocabulary.padding_id,
        number_of_classes=vocabulary.size,
        mask_rate=pretraining.mask_rate,
        seed=seed,
    )


class MaskedLanguageModelling:
    """Of the tokens that are not special, `mask_rate` are targets: 80 % masked, 10 % random, 10 % kept.

    The number of targets of a sequence is fixed (the rounded share, at least one), not drawn, so that every batch
    costs the same.

    Args:
        sequences: packed token ids.
        special_ids: never masked, never drawn as a random token.
        mask_id: of the mask token.
        padding_id: of the padding token.
        number_of_classes: V, the size of the vocabulary without padded rows.
        mask_rate: the share of target positions.
        seed: of the masks.
    """

    head = "masked_tokens"

    def __init__(
        self,
        sequences: TokenTable,
        *,
        special_ids: list[int],
        mask_id: int,
        padding_id: int,
        number_of_classes: int,
        mask_rate: float,
        seed: int,
    ) -> None:
        self.number_of_classes = number_of_classes
        self.lengths_N = sequences.lengths_N
        # About: a sequence's own count leaves its special tokens out.
        self.targets_N = np.maximum(1, np.rint(mask_rate * self.lengths_N).astype(np.int64))
        self.gold_targets_N = self.targets_N
        self.gold_ids = np.arange(len(self.lengths_N))
        self._sequences, self._mask_id, self._padding_id = sequences, mask_id, padding_id
        self._mask_rate, self._seed = mask_rate, seed
        self._special_ids = np.array(sorted(special_ids), dtype=np.int32)
        self._ordinary_ids = np.setdiff1d(np.arange(number_of_classes, dtype=np.int32), self._special_ids)

    def batch(self, example_ids: np.ndarray, draw: int) -> Batch:
        """Sequences with their targets corrupted by `draw`; labels are the tokens that stood there."""
        originals = [self._sequences.tokens(int(i)) for i in example_ids]
        keys_B = content_keys(originals)
        corrupted, places = [], []
        for key, tokens in zip(keys_B, originals, strict=True):
            changed, targets = self._corrupt(tokens, draw, int(key))
            corrupted.append(changed)
            places.append(targets)
        inputs = pad_tokens(corrupted, self._padding_id)
        width = inputs["input_ids"].shape[1]
        positions_P = np.concatenate([row * width + targets for row, targets in enumerate(places)])
        labels_P = np.concatenate([tokens[targets] for tokens, targets in zip(originals, places, strict=True)])
        return Batch(
            inputs=inputs,
            positions_P=torch.from_numpy(positions_P.astype(np.int64)),
            labels_P=torch.from_numpy(labels_P.astype(np.int64)),
            example_ids_B=torch.from_numpy(example_ids.astype(np.int64)),
            keys_B=keys_B,
            draw=draw,
        )

    def _corrupt(self, tokens: np.ndarray, draw: int, key: int) -> tuple[np.ndarray, np.ndarray]:
        random = generator("masks", self._seed, draw, key)
        candidates = np.flatnonzero(~np.isin(tokens, self._special_ids))
        count = min(max(1, round(self._mask_rate * len(candidates))), len(candidates))
        targets = np.sort(random.permutation(candidates)[:count])
        fate = random.random(count)
        substitutes = self._ordinary_ids[random.integers(len(self._ordinary_ids), size=count)]
        changed = tokens.copy()
        is_masked, is_random = fate < _MASKED_SHARE, fate >= 1 - _RANDOM_SHARE
        changed[targets[is_masked]] = self._mask_id
        changed[targets[is_random]] = substitutes[is_random]
        return changed, targets
