"""Simulated annealing: a worse move is kept with a probability that falls as it gets worse."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from esenas_jax import _checks
from esenas_jax.rules.rule import Metrics, Moved, Rule, chosen, params_of
from esenas_jax.search import SearchState
from esenas_jax.tasks.normalizer import Moments
from esenas_jax.types import Array, Key, PyTree

Cooling = Callable[[Array], ArrayLike]  # times applied [] -> factor of the temperatures


class Kept(NamedTuple):
    """What learners fall back on, by slot."""

    strategy: PyTree  # [M]: the weights, and what their optimiser knows
    moments: Moments  # [M]
    scores: Array  # float32 [M]
    applied: Array  # int32 []


def metropolis(key: Key, worsening: Array, temperature: Array) -> Array:
    """Return whether moves are kept, bool: with probability min(1, exp(-worsening / temperature)).

    Args:
        key: of the draws.
        worsening: float32 [...], of what is minimised; NaN is never kept.
        temperature: float32 [...], in the same unit; at 0 nothing that is worse is kept.
    """
    # 1 - u is in (0, 1]: its logarithm is finite, and at a worsening of 0 all is kept.
    uniform = 1.0 - jax.random.uniform(key, worsening.shape, jnp.float32)
    return (worsening <= 0) | (-jnp.log(uniform) * temperature > worsening)


def annealing(temperature: float | Sequence[float] = 1.0, cooling: Cooling | None = None) -> Rule:
    """Return the rule that takes moves back (Metropolis' criterion).

    A learner whose score is worse than that of the weights it last kept keeps its move with
    probability exp(-worsening / temperature), and otherwise goes back to those weights, with their
    optimiser and observation moments. The controller, which has learnt from the move too, stays.
    Weights that are scored again, since their learner went back to them, have their latest score.

    Args:
        temperature: in units of the score, positive; of all learners, or one for each of them.
        cooling: an optax schedule of how often the rule was applied, whose value multiplies the
            temperatures; constant by default.

    Raises:
        TypeError, ValueError: if a temperature is not positive.
    """
    several = hasattr(temperature, "__len__")
    each_one: Any = temperature if several else [temperature]
    temperatures = [_checks.positive("temperature", t) for t in each_one]

    def init(learners: SearchState, number: int) -> Kept:
        if several and len(temperatures) != number:
            raise ValueError(
                f"temperature must be one number, or one for each of {number} learners, got "
                f"{len(temperatures)}."
            )
        worst = jnp.full(number, -jnp.inf, jnp.float32)
        return Kept(learners.strategy, learners.moments, worst, jnp.int32(0))

    def apply(key: Key, memory: Kept, moved: Moved) -> tuple[Kept, Moved, Metrics]:
        now = jnp.asarray(temperatures, jnp.float32)
        if cooling is not None:
            now = now * jnp.asarray(cooling(memory.applied), jnp.float32)
        worsening = memory.scores - moved.scores
        # Where both have failed there is nothing to go back to.
        worsening = jnp.where(jnp.isnan(worsening), 0.0, worsening)
        # Who was taken back may have stood still since: the same weights, measured again. Were that
        # a move, the luckiest measurement would stay for ever.
        again = (params_of(moved.before) == memory.strategy.params).all(axis=1)
        keep = again | metropolis(key, worsening, jnp.broadcast_to(now, worsening.shape))

        def back(learners: SearchState) -> SearchState:
            return learners._replace(strategy=memory.strategy, moments=memory.moments)

        before = chosen(keep, moved.before, back(moved.before))
        after = chosen(keep, moved.after, back(moved.after))
        scores = jnp.where(keep, moved.scores, memory.scores)
        # In this order: what learners share stays the rule's own.
        strategy = chosen(~keep, memory.strategy, before.strategy)
        kept = Kept(strategy, before.moments, scores, memory.applied + 1)
        metrics = {"kept": jnp.mean(keep, dtype=jnp.float32)}
        return kept, Moved(before, after, scores), metrics

    return Rule(init, apply)
