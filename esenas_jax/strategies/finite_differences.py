"""What ES and ARS share: perturb along random directions, step along their weighted sum.

They differ in one function: how the scores of a generation become a weight per direction.
"""

import enum
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from esenas_jax import _checks
from esenas_jax.strategies.noise import Noise
from esenas_jax.strategies.shaping import reciprocal
from esenas_jax.strategies.strategy import Metrics, Strategy, Total, Used
from esenas_jax.types import Array, Key, PyTree

# step_size -> optax optimiser; optax.sgd with no momentum is plain gradient ascent here.
Optimizer = Callable[[Array], optax.GradientTransformation]


class Outcome(NamedTuple):
    """The scores of a generation, by direction."""

    plus: Array  # float32 [D]
    minus: Array | None  # float32 [D], None for forward differences
    valid: Array  # bool [D], False where either half failed
    exact_mean: Array  # float32 [], over the valid exact evaluations
    exact_valid: Array  # bool [], False if there are none
    noise_std: Array  # float32 []


class Unused(enum.Enum):
    """What becomes of perturbations of parameters that a candidate's architecture does not use.

    The score of architecture m does not depend on the noise g_j of a parameter j that m does not
    use, so E[score g_j] = 0: what g_j adds to the update is noise and nothing else.

    - KEPT: it is added, as released.
    - ZERO: it is left out. With halves of one pair that run different architectures, + g_j counts
      where the plus half uses j, and - g_j where the minus half does. Of scores as they are the
      expectation is that of KEPT, exactly; shaping by the generation's own scores makes it so up
      to terms of 1/N, as it does of KEPT.
    - SHARED: as ZERO, and the sum of every parameter is divided by the share of the candidates
      that use it: the mean over users, where the release has that over all. It is another
      estimator: its expectation is 1/P(use) times as long, parameter by parameter, so a step size
      of KEPT is too large for it by about as much. Devices then exchange the number of users of
      every parameter too, a second vector of that size.
    """

    KEPT = "kept"
    ZERO = "zero"
    SHARED = "shared"


# outcome -> what the halves of all directions are worth, float32 [halves, D], and how the
# difference of a direction's halves [D] (of forward differences, the one there is) becomes its
# weight in the gradient: x times what 1 becomes, and 0 for a direction that does not count.
DirectionWeights = Callable[[Outcome], tuple[Array, Callable[[Array], Array]]]


class Hyper(NamedTuple):
    """Numbers that can vary from run to run without a new compilation, float32 []."""

    noise_std: Array
    step_size: Array


class State(NamedTuple):
    """What the next generation needs."""

    params: Array  # [P]
    optimizer: PyTree
    hyper: Hyper
    noise: PyTree  # what perturbations are drawn from


def first_state(optimizer: Optimizer, step_size: Array, params: PyTree) -> PyTree:
    """Return the first state of what an optimizer makes of a step size.

    Raises:
        TypeError: if its updates need more than gradients and parameters.
    """
    try:
        with jax.numpy_dtype_promotion("standard"):  # optax's optimisers mix dtypes
            made = optimizer(step_size)
            state = made.init(params)
            jax.eval_shape(made.update, params, state, params)
    except Exception as error:
        line = (str(error).splitlines() or [""])[0].rstrip(".")
        raise TypeError(
            f"optimizer must be a function from a step size to an optax optimizer that needs only "
            f"gradients and parameters, got one that failed with {type(error).__name__}: {line}."
        ) from error
    return state


class Drawn(NamedTuple):
    """The perturbations of a generation, in place of what they are drawn from."""

    block: Array  # float32 [D, P]


DRAWN_AT_A_TIME = 2**18  # numbers, which a core's cache holds


def finite_differences(
    direction_weights: DirectionWeights,
    *,
    num_directions: int,
    num_exact: int,
    noise_std: float,
    step_size: float,
    antithetic: bool,
    optimizer: Optimizer,
    noise: Noise,
    unused: Unused,
    multiplicative: bool,
) -> Strategy:
    """Return the strategy that ascends sum_d weight_d * noise_d.

    If `multiplicative`, noise_d is |params| times what the source draws. Direction d is candidates
    2d (plus) and 2d + 1 (minus) when antithetic, candidate d when not.
    """
    num_directions = _checks.integer("num_directions", num_directions, 1)
    num_exact = _checks.integer("num_exact", num_exact, 0 if antithetic else 1)
    unused = Unused(_checks.known("unused", getattr(unused, "value", unused), _UNUSED_NAMES))
    hyper = (_checks.positive("noise_std", noise_std), _checks.positive("step_size", step_size))
    _checks.function_of("optimizer", optimizer, "the step size", "optax.adam")
    halves = 2 if antithetic else 1
    num_perturbed = halves * num_directions

    def init(params: Array) -> State:
        values = Hyper(*(jnp.asarray(x, jnp.float32) for x in hyper))
        optimizer_state = first_state(optimizer, values.step_size, params)
        return State(params, optimizer_state, values, noise.init(params.size))

    def noise_of(key: Key, state: State, params: Array, d: Array) -> Array:
        if isinstance(state.noise, Drawn):
            drawn = state.noise.block[jnp.minimum(d, num_directions - 1)]
        else:
            drawn = noise.sample(key, state.noise, d, params.size)
        return jnp.abs(params) * drawn if multiplicative else drawn

    def prepare(key: Key, state: State, most_bytes: int) -> State:
        size = state.params.size
        if not noise.costly or 4 * num_directions * size > most_bytes:
            return state
        directions = jnp.arange(num_directions, dtype=jnp.int32)

        def draw(direction: Array) -> Array:
            return noise.sample(key, state.noise, direction, size)

        at_a_time = num_directions
        if jax.default_backend() == "cpu":
            at_a_time = min(max(1, DRAWN_AT_A_TIME // max(size, 1)), num_directions)
        drawn = jax.lax.map(draw, directions, batch_size=at_a_time)
        return state._replace(noise=Drawn(drawn))

    def candidate(key: Key, state: State, i: Array) -> Array:
        return perturbed(state, i, noise_of(key, state, state.params, i // halves))

    def perturbed(state: State, i: Array, perturbation: Array) -> Array:
        sign = jnp.where(i % 2 == 0, 1.0, -1.0) if antithetic else 1.0
        scale = jnp.where(i < num_perturbed, sign * state.hyper.noise_std, 0.0)
        return state.params + scale * perturbation

    def candidates(key: Key, state: State, ids: Array) -> Array:
        if ids.ndim == 1 or not antithetic:
            return jnp.vectorize(lambda i: candidate(key, state, i), signature="()->(p)")(ids)

        def pair(ids: Array) -> Array:
            perturbation = noise_of(key, state, state.params, ids[0] // halves)
            return jax.vmap(lambda i: perturbed(state, i, perturbation))(ids)

        return jax.vmap(pair)(ids)

    def update(
        key: Key,
        state: State,
        fitness: Array,
        valid: Array,
        total: Total,
        used: Used | None = None,
        source: State | None = None,
    ) -> tuple[State, Metrics]:
        source = state if source is None else source
        of = functools.partial(noise_of, key, source, source.params)
        values, weighed = direction_weights(_outcome(state, fitness, valid))
        if unused is Unused.KEPT:
            weight = weighed(values[0] - values[1] if antithetic else values[0])
            # The weight is 0, not merely small, where a direction failed: 0 * noise adds nothing.
            ascent = total(lambda d: weight[d] * of(d))
        else:
            ascent = _of_users(values, weighed, total, used, of)
        # The one minus of the package: optax descends, fitness is maximised.
        with jax.numpy_dtype_promotion("standard"):  # optax's optimisers mix dtypes
            transformation = optimizer(state.hyper.step_size)
            updates, opt_state = transformation.update(-ascent, state.optimizer, state.params)
        step = jnp.asarray(updates)
        metrics = {"update_norm": jnp.linalg.norm(step)}
        return state._replace(params=state.params + step, optimizer=opt_state), metrics

    def _of_users(
        values: Array, weighed: Callable, total: Total, used: Used | None, noise_of: Callable
    ) -> Array:
        assert used is not None
        scale = weighed(jnp.ones(num_directions, jnp.float32))  # of what a direction is worth
        counts = scale != 0
        number = jnp.sum(counts, dtype=jnp.float32) * halves
        worth = list(values)  # of each half, [D]
        if antithetic:
            # What the halves have in common no longer cancels where only one of them uses a
            # parameter. The mean of all other directions does not depend on this one's noise; it
            # is taken away before the division, since a difference of two products, which both
            # would become, is rounded one way or the other from program to program.
            own = jnp.sum(jnp.where(counts, values, 0.0), axis=0)
            others = jnp.maximum(number - halves, 1.0)
            share = reciprocal(others)
            worth = [(half * others - (jnp.sum(own) - own)) * share for half in worth]
        weights = [jnp.where(counts, scale * half, 0.0) for half in worth]

        def uses(d: Array) -> list[Array]:
            return [used(halves * d + h).astype(jnp.float32) for h in range(halves)]

        def moved(d: Array) -> Array:
            halved = zip(weights, uses(d), strict=True)
            signed = [(-1.0) ** h * weight[d] * mine for h, (weight, mine) in enumerate(halved)]
            return sum(signed, jnp.float32(0)) * noise_of(d)

        if unused is Unused.ZERO:
            return total(moved)
        ascent, users = total(lambda d: (moved(d), jnp.where(counts[d], sum(uses(d)), 0.0)))
        return ascent * number / jnp.maximum(users, 1.0)

    def _outcome(state: State, fitness: Array, valid: Array) -> Outcome:
        halved = fitness[:num_perturbed].reshape(num_directions, halves)
        exact, exact_valid = fitness[num_perturbed:], valid[num_perturbed:]
        count = jnp.sum(exact_valid, dtype=jnp.float32)
        # Taken from the largest: the mean of equal scores is then that score to the last bit.
        largest = jnp.max(jnp.where(exact_valid, exact, -jnp.inf), initial=-jnp.inf)
        largest = jnp.where(count > 0, largest, 0.0)
        return Outcome(
            plus=halved[:, 0],
            minus=halved[:, 1] if antithetic else None,
            valid=valid[:num_perturbed].reshape(num_directions, halves).all(axis=1),
            exact_mean=largest
            + jnp.sum(jnp.where(exact_valid, exact - largest, 0.0)) / jnp.maximum(count, 1.0),
            exact_valid=count > 0,
            noise_std=state.hyper.noise_std,
        )

    return Strategy(
        num_directions=num_directions,
        num_perturbed=num_perturbed,
        num_exact=num_exact,
        init=init,
        candidate=candidate,
        candidates=candidates,
        update=update,
        pair=lambda i: jnp.where(i < num_perturbed, i // halves, i),
        prepare=prepare,
    )


_UNUSED_NAMES = [unused.value for unused in Unused]


def best_half(outcome: Outcome) -> Array:
    """Rank directions by max(r+, r-), as ARS does (arXiv 1803.07055, Algorithm 2, line 6)."""
    if outcome.minus is None:
        return outcome.plus
    return jnp.maximum(outcome.plus, outcome.minus)


def largest_difference(outcome: Outcome) -> Array:
    """Rank directions by |v+ - v-|, as the released ES does; forward ones by v."""
    if outcome.minus is None:
        return outcome.plus
    return jnp.abs(outcome.plus - outcome.minus)


def kept(rank: Array, valid: Array, num_kept: int) -> Array:
    """Return bool [D], the valid directions whose rank is at least the num_kept-th largest.

    Ties at the boundary are all kept, as in the ARS code; failed directions never are.
    """
    rank = jnp.where(valid, rank, -jnp.inf)
    return valid & (rank >= jax.lax.top_k(rank, num_kept)[0][-1])
