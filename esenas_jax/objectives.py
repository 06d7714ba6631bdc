"""From what an evaluation saw to what the two learners maximise.

All scores are maximised, and all start from the shifted return: the return, less a constant for
every step survived (`shifted_return`). A cost is any field of `Cost`, by its name.

    objective          the strategy sees                the controller sees
    shifted_return     the shifted return               the same
    weighted_product   its product with the cost,       the product
                       as released, or not
    linear_penalty     the shifted return, or less      less the penalty
                       the penalty
    hard_limit         the shifted return               the same within the limit; beyond it less
                                                        than anything within
    pareto             the shifted return               two numbers: the return, and minus the cost
"""

from collections.abc import Callable, Mapping
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
    num_objectives: int = 1  # M, the numbers that the controller sees
    cost: str = "edges"  # the field of `Cost` to show beside the return


class State(NamedTuple):
    """What an objective needs."""

    hyper: dict[str, Array]  # float32 [], can vary from run to run without a new compilation


def shifted_return(shift_per_step: float = 0.0) -> Objective:
    """Return the objective: the return, less a constant for every step survived.

    ARS subtracts the survival bonus while it trains, 0 for Swimmer and HalfCheetah, 1 for Hopper,
    Walker2d and Ant, 5 for Humanoid (arXiv 1803.07055); what is reported is never shifted. Both
    learners see the same score.

    Args:
        shift_per_step: finite.
    """

    def apply(state: State, evaluation: Evaluation, cost: Cost) -> Scores:
        del cost
        score = _shifted(state, evaluation)
        return Scores(strategy=score, controller=score)

    return Objective(_init(_shift(shift_per_step)), apply)


def weighted_product(
    target: float = 64.0,
    alpha: float = 0.0,
    beta: float = -1.0,
    offset: float = 1000.0,
    cost: str = "multiplications",
    shift_per_step: float = 0.0,
    penalize_strategy: bool = True,
) -> Objective:
    """Return the released objective: (r + 1000) (cost / target)^w.

    w is alpha where the cost is at most the target, beta above it: with the released numbers
    nothing is gained below 64 multiplications, and above them the score falls with 1 / cost
    (`compute_pareto_score_multiplications` of the released `es_enas`; the form is MnasNet's, arXiv
    1807.11626 section 3.1). The release makes this the score of a rollout: both learners see it.

    It is meant for returns above -offset: where r + offset is negative, a higher cost scores
    better.

    Args:
        target: positive.
        alpha: the exponent up to the target, finite.
        beta: the exponent above it, finite.
        offset: what makes returns positive, finite.
        cost: a field of `Cost`; a cost below 1 counts as 1.
        shift_per_step: finite, see `shifted_return`.
        penalize_strategy: whether the strategy sees the product too, or the shifted return alone.

    Raises:
        TypeError, ValueError: if there is no such cost, or a number is out of range.
    """
    hyper = _shift(shift_per_step) | {
        "target": _checks.positive("target", target),
        "alpha": _checks.real("alpha", alpha),
        "beta": _checks.real("beta", beta),
        "offset": _checks.real("offset", offset),
    }

    def product(hyper: Mapping[str, Array], score: Array, cost: Array) -> Array:
        ratio = jnp.maximum(cost, 1.0) / hyper["target"]
        exponent = jnp.where(ratio <= 1.0, hyper["alpha"], hyper["beta"])
        return (score + hyper["offset"]) * ratio**exponent

    return _weighed(product, hyper, cost, penalize_strategy)


def linear_penalty(
    weight: float,
    target: float = 0.0,
    cost: str = "multiplications",
    shift_per_step: float = 0.0,
    penalize_strategy: bool = False,
) -> Objective:
    """Return the objective: r - weight max(cost - target, 0).

    The strategy sees the shifted return unless it is asked to see this too: weights cannot change
    what an architecture costs, so that to them the penalty is noise.

    Args:
        weight: what one unit of cost is worth in units of return, at least 0.
        target: the cost that is free, at least 0.
        cost: a field of `Cost`.
        shift_per_step: finite, see `shifted_return`.
        penalize_strategy: whether the strategy sees the penalty.

    Raises:
        TypeError, ValueError: if there is no such cost, or a number is out of range.
    """
    hyper = _shift(shift_per_step) | {
        "weight": _checks.real("weight", weight, 0.0),
        "target": _checks.real("target", target, 0.0),
    }

    def penalized(hyper: Mapping[str, Array], score: Array, cost: Array) -> Array:
        return score - hyper["weight"] * jnp.maximum(cost - hyper["target"], 0.0)

    return _weighed(penalized, hyper, cost, penalize_strategy)


def hard_limit(
    limit: float,
    floor: float = -10_000.0,
    cost: str = "multiplications",
    shift_per_step: float = 0.0,
) -> Objective:
    """Return the objective: the best return that costs no more than a limit.

    Up to the limit the controller sees max(r, floor), above it floor - 1 - (cost - limit): less
    than anything within the limit, and less the further beyond, so that a search that starts
    outside finds its way in. Such a candidate has not failed. It is not the answer either, as long
    as any contender is within the limit and none of its episodes failed. The strategy always sees
    the shifted return.

    Args:
        limit: the highest cost that is allowed, at least 0.
        floor: a score that no policy worth having is below, in [-1e6, 1e6]. A controller that
            averages scores (policy gradient) learns faster the nearer it is to the worst return.
        cost: a field of `Cost`.
        shift_per_step: finite, see `shifted_return`.

    Raises:
        TypeError, ValueError: if there is no such cost, or a number is out of range.
    """
    hyper = _shift(shift_per_step) | {
        "limit": _checks.real("limit", limit, 0.0),
        # Beyond 1e6 float32 no longer tells one edge from the next.
        "floor": _checks.real("floor", floor, -1e6, 1e6),
    }

    def limited(hyper: Mapping[str, Array], score: Array, cost: Array) -> Array:
        excess = cost - hyper["limit"]
        beyond = hyper["floor"] - 1.0 - excess
        return jnp.where(excess > 0.0, beyond, jnp.maximum(score, hyper["floor"]))

    return _weighed(limited, hyper, cost, penalize_strategy=False)


def pareto(cost: str = "multiplications", shift_per_step: float = 0.0) -> Objective:
    """Return the objective of a Pareto controller: a high return, and a low cost.

    The controller sees (return, -cost), unshifted, the numbers that a front is reported in; the
    strategy sees the shifted return.

    Args:
        cost: a field of `Cost`.
        shift_per_step: finite, see `shifted_return`.

    Raises:
        TypeError, ValueError: if there is no such cost, or the shift is not finite.
    """
    cost_name = _checks.known("cost", cost, Cost._fields)

    def apply(state: State, evaluation: Evaluation, cost: Cost) -> Scores:
        both = jnp.stack([evaluation.episode_return, -_amount(cost, cost_name)])
        return Scores(strategy=_shifted(state, evaluation), controller=both)

    return Objective(_init(_shift(shift_per_step)), apply, num_objectives=2, cost=cost_name)


def _weighed(
    score: Callable[[Mapping[str, Array], Array, Array], Array],
    hyper: Mapping[str, float],
    cost_name: str,
    penalize_strategy: bool,
) -> Objective:
    """Return the objective whose controller maximises `score` of (hyper, shifted return, cost)."""
    _checks.known("cost", cost_name, Cost._fields)

    def apply(state: State, evaluation: Evaluation, cost: Cost) -> Scores:
        plain = _shifted(state, evaluation)
        weighed = score(state.hyper, plain, _amount(cost, cost_name))
        return Scores(strategy=weighed if penalize_strategy else plain, controller=weighed)

    return Objective(_init(hyper), apply, cost=cost_name)


def _shift(shift_per_step: float) -> dict[str, float]:
    return {"shift_per_step": _checks.real("shift_per_step", shift_per_step)}


def _init(hyper: Mapping[str, float]) -> Callable[[], State]:
    return lambda: State({name: jnp.asarray(x, jnp.float32) for name, x in hyper.items()})


def _shifted(state: State, evaluation: Evaluation) -> Array:
    return evaluation.episode_return - state.hyper["shift_per_step"] * evaluation.episode_length


def _amount(cost: Cost, name: str) -> Array:
    return getattr(cost, name).astype(jnp.float32)
