import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from lightpaff.data.token_table import TokenTable, write_token_table
from lightpaff.models.architecture import NEXT_TOKENS
from lightpaff.models.opening import split_model
from lightpaff.objectives.clm import CausalLanguageModelling
from lightpaff.objectives.document_rows import SEQUENCE_COLUMNS
from lightpaff.training.device import Hardware
from lightpaff.training.validation import validate_tokens


def test_a_perplexity_while_training_is_no_higher_than_one_that_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "rows.arrow"
    write_token_table(path, [{"input_ids": [[3, 4, 5, 6]], "document_starts": [[0]]}], SEQUENCE_COLUMNS)
    data = CausalLanguageModelling(
        TokenTable(path), TokenTable(path, "document_starts"), padding_id=0, number_of_classes=9
    )
    diverged = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    with torch.no_grad():
        diverged.transformer.ln_f.weight.fill_(1e6)
    model = split_model(diverged.eval(), NEXT_TOKENS, 9)
    found = validate_tokens(data, np.arange(1), 100, Hardware(torch.device("cpu"), "float32"), model)
    assert found["nll"] > 115
    assert found["perplexity"] == pytest.approx(math.exp(115))
