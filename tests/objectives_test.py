"""What the learners see of an evaluation."""

import jax.numpy as jnp
import pytest

from esenas_jax.objectives import shifted_return
from esenas_jax.policies import costs
from esenas_jax.tasks import single_score


@pytest.mark.parametrize(("shift", "score"), [(0.0, 90.0), (1.0, 50.0), (-2.0, 170.0)])
def test_the_shift_is_taken_from_every_step(shift, score):
    objective = shifted_return(shift)
    seen = single_score(jnp.float32(90.0))._replace(episode_length=jnp.float32(40.0))
    scores = objective.apply(objective.init(), seen, costs.cost(edges=1, weights=1, biases=0))
    assert (scores.strategy, scores.controller) == (score, score)


@pytest.mark.parametrize("shift", [float("nan"), float("inf")])
def test_a_shift_that_is_not_finite_is_refused(shift):
    with pytest.raises(ValueError, match="shift_per_step must be finite, got"):
        shifted_return(shift)
