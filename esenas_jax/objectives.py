"""From what an evaluation saw to what the two learners maximise."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.types import Array, Cost, Evaluation, PyTree, Scores


class Objective(NamedTuple):
    """Scores an evaluation, given what its architecture costs; written for one candidate.

    Numbers that may vary from run to run are float32 leaves of a `hyper` field of the state.
    """

    init: Callable[[], PyTree]  # -> state
    apply: Callable[[PyTree, Evaluation, Cost], Scores]


class Hyper(NamedTuple):
    """Numbers that can vary from run to run without a new compilation, float32 []."""

    shift_per_step: Array


class State(NamedTuple):
    """What `shifted_return` needs."""

    hyper: Hyper


def shifted_return(shift_per_step: float = 0.0) -> Objective:
    """Return the objective: the return, less a constant for every step survived.

    ARS subtracts the survival bonus while it trains, 0 for Swimmer and HalfCheetah, 1 for Hopper,
    Walker2d and Ant, 5 for Humanoid (arXiv 1803.07055); what is reported is never shifted. Both
    learners see the same score.

    Args:
        shift_per_step: finite.
    """
    shift = _checks.real("shift_per_step", shift_per_step)

    def apply(state: State, evaluation: Evaluation, cost: Cost) -> Scores:
        del cost
        shift = state.hyper.shift_per_step * evaluation.episode_length
        score = evaluation.episode_return - shift
        return Scores(strategy=score, controller=score)

    return Objective(init=lambda: State(Hyper(jnp.asarray(shift, jnp.float32))), apply=apply)
