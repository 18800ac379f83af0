import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightpaff.data.batch_order import BatchOrder
from lightpaff.recipe_training import Training
from lightpaff.training.loop import count_steps


@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 20_000))
@settings(deadline=None)
def test_a_token_budget_is_met_and_not_exceeded_by_a_step(examples: int, batch_size: int, tokens: int) -> None:
    lengths_N = np.full(examples, 16)
    order = BatchOrder(lengths_N, np.arange(examples), batch_size, 64, seed=0)
    training = Training(tokens=tokens, learning_rate=1.0, batch_size=batch_size)
    steps = count_steps(training, lengths_N, order.steps_per_epoch)
    tokens_a_step = lengths_N.sum() / order.steps_per_epoch
    assert (steps - 1) * tokens_a_step < tokens <= steps * tokens_a_step + 1e-6


@pytest.mark.parametrize(("epochs", "steps"), [(1, 10), (2.5, 25), (0.01, 1)])
def test_epochs_are_steps_of_the_data(epochs: float, steps: int) -> None:
    assert count_steps(Training(epochs=epochs, learning_rate=1.0), np.ones(5), steps_per_epoch=10) == steps
