import pytest
import torch
from transformers import AutoConfig, AutoModel

from lightpaff.models.encoder import without_unknown_segments


@pytest.mark.parametrize(("segments", "kept"), [(2, True), (1, False), (0, False)])
def test_segments_reach_only_a_model_that_tells_them_apart(segments: int, kept: bool) -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = AutoConfig.for_model("bert", vocab_size=9, type_vocab_size=segments, **sizes)
    inputs = {"input_ids": torch.ones(1, 3), "token_type_ids": torch.ones(1, 3)}
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    assert set(without_unknown_segments(model, inputs)) == ({*inputs} if kept else {"input_ids"})


def test_segments_do_not_reach_a_model_that_knows_none() -> None:
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.for_model("distilbert", dim=8, n_layers=1, n_heads=1, hidden_dim=8))
    assert without_unknown_segments(model, {"input_ids": torch.ones(1), "token_type_ids": torch.ones(1)}).keys() == {
        "input_ids"
    }
