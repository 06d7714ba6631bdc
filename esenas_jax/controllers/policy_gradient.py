"""Policy gradient: a distribution over architectures that climbs its expected score.

Two updates, REINFORCE and PPO, of any parameterisation of the distribution (`factorised`,
`autoregressive`). The release names a policy gradient as its default controller (PyGlove's, "ppo")
and did not publish it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from esenas_jax import _checks
from esenas_jax.controllers.controller import Controller, Metrics
from esenas_jax.controllers.distribution import Distribution, Parameterisation, as_genotype
from esenas_jax.controllers.factorised import factorised
from esenas_jax.controllers.latest import Latest, after, latest, nothing_yet
from esenas_jax.spaces import Space
from esenas_jax.strategies.finite_differences import first_state
from esenas_jax.strategies.shaping import reciprocal, spread, z_score
from esenas_jax.types import Array, Genotype, Key, PyTree

# learning_rate -> optax optimiser
Optimizer = Callable[[Any], optax.GradientTransformation]


class Hyper(NamedTuple):
    """Numbers that can vary from run to run without a new compilation, float32 []."""

    learning_rate: Array
    entropy_weight: Array


class State(NamedTuple):
    """What the next generation needs."""

    params: PyTree  # of the distribution
    optimizer: PyTree
    averages: PyTree  # of scores, for what compares with earlier generations
    latest: Latest
    hyper: Hyper


class Averages(NamedTuple):
    """Moving averages over the generations."""

    mean: Array  # float32 [], of the scores
    std: Array  # float32 [], of their standard deviation
    begun: Array  # bool [], False before the first


class Info(NamedTuple):
    """What the update wants back of a proposal."""

    draw: Genotype  # the architecture in the order in which it was drawn
    log_probs: Array  # float32 [T], of its decisions when they were made


class Batch(NamedTuple):
    """What an update learns from, [N] or [minibatch]."""

    info: Info
    advantage: Array  # float32
    weight: Array  # float32, 0 for a candidate that failed, else 1


def reinforce(
    space: Space,
    parameterisation: Parameterisation = factorised,
    learning_rate: float | None = None,
    entropy_weight: float = 0.0,
    baseline_decay: float = 0.9,
    optimizer: Optimizer = optax.adam,
    num_best: int = 8,
) -> Controller:
    r"""Return REINFORCE (Williams, 1992) with a moving average of the scores as its baseline.

    The parameters phi climb the estimate of the gradient of E[score] + beta H, the expected score
    and the entropy of what is drawn (of sets, in the order in which their items are),

        1/N sum_i (A_i - beta (log p(m_i) - mean log p)) grad log p(m_i),  A_i = (r_i - b) / s.

    b and s are moving averages of the mean and the standard deviation of the scores of earlier
    generations (of this one, in the first), so b leaves the estimate unbiased and s only changes
    its length. The mean of log p is over the generation's N valid candidates: it makes the
    entropy's part, and that alone, (N - 1)/N as long where each draws for itself. Results that come
    late are taken as if they were drawn now; PPO weighs them. A generation of equal scores changes
    nothing, and neither does one whose update overflows.

    Args:
        space: of the policy; of choices among options.
        parameterisation: `factorised` or `autoregressive(...)`.
        learning_rate: of the optimiser, positive; by default one that suits the parameterisation
            and Adam.
        entropy_weight: beta, at least 0, in units of the scores' standard deviation.
        baseline_decay: how much of the moving averages stays, in [0, 1).
        optimizer: learning rate -> optax optimiser.
        num_best: how many architectures `best` offers, at least 1: the likeliest, then the best of
            the latest generation.

    Raises:
        ValueError: if a number is outside its range, or the space has numbers from a range.
    """
    decay = _checks.real("baseline_decay", baseline_decay, 0.0)
    if decay >= 1.0:
        raise ValueError(f"baseline_decay must be below 1, got {baseline_decay!r}.")
    distribution = parameterisation(space)
    if learning_rate is None:
        learning_rate = distribution.learning_rate

    def learn(key: Key, state: State, batch: Batch) -> State:
        del key

        def loss(params: PyTree) -> Array:
            log_probs = jax.vmap(distribution.log_probs, (None, 0))(params, batch.info.draw)
            total = jnp.sum(batch.weight * batch.advantage * jnp.sum(log_probs, axis=1))
            return -total / jnp.sum(batch.weight)

        return descend(state, optimizer, jax.grad(loss)(state.params))

    def advantages(old: Averages, scores: Array, valid: Array) -> tuple[Averages, Array]:
        count = jnp.maximum(jnp.sum(valid, dtype=jnp.float32), 1.0)
        mean = jnp.sum(jnp.where(valid, scores, 0.0)) / count
        deviation = jnp.where(valid, scores - mean, 0.0)
        std = jnp.sqrt(jnp.sum(deviation**2) / count)
        baseline, scale = jnp.where(old.begun, old.mean, mean), jnp.where(old.begun, old.std, std)
        new = Averages(
            mean=decay * baseline + (1.0 - decay) * mean,
            std=decay * scale + (1.0 - decay) * std,
            begun=jnp.ones((), bool),
        )
        return new, (scores - baseline) * reciprocal(jnp.where(scale > 0, scale, 1.0))

    nothing = jnp.zeros((), jnp.float32)
    averages = Averages(nothing, nothing, jnp.zeros((), bool))
    return _policy_gradient(
        space, distribution, learning_rate, entropy_weight, optimizer, num_best,
        averages, advantages, learn,
    )  # fmt: skip


def ppo(
    space: Space,
    parameterisation: Parameterisation = factorised,
    learning_rate: float | None = None,
    entropy_weight: float = 0.0,
    epochs: int = 4,
    minibatch_size: int = 64,
    clip: float = 0.2,
    optimizer: Optimizer = optax.adam,
    num_best: int = 8,
) -> Controller:
    r"""Return proximal policy optimisation (arXiv 1707.06347, equation 7), an episode a proposal.

    Every epoch goes through the candidates of a generation in a new order, minibatch after
    minibatch; what is left over is left to the other epochs. A minibatch climbs

        mean_i sum_t min(rho_it A_i, clip(rho_it, 1 - epsilon, 1 + epsilon) A_i),

    with rho_it the ratio of the probabilities of decision t of proposal i, given those before it,
    now and when it was made. A are the scores less their mean, over their standard deviation, less
    the part of the entropy that `reinforce` has too. A generation of equal scores changes nothing,
    and neither does one whose update overflows.

    Args:
        space: of the policy; of choices among options.
        parameterisation: `factorised` or `autoregressive(...)`.
        learning_rate: of the optimiser, positive; by default half of what suits the
            parameterisation with a step a generation, as there are many.
        entropy_weight: beta, at least 0, in units of the scores' standard deviation.
        epochs: at least 1.
        minibatch_size: released 64; at least 1, all candidates where they are fewer.
        clip: epsilon, positive.
        optimizer: learning rate -> optax optimiser.
        num_best: how many architectures `best` offers, at least 1: the likeliest, then the best of
            the latest generation.

    Raises:
        ValueError: if a number is outside its range, or the space has numbers from a range.
    """
    epochs = _checks.integer("epochs", epochs, 1)
    minibatch_size = _checks.integer("minibatch_size", minibatch_size, 1)
    clip = _checks.positive("clip", clip)
    distribution = parameterisation(space)
    if learning_rate is None:
        learning_rate = distribution.learning_rate / 2.0

    def learn(key: Key, state: State, batch: Batch) -> State:
        number = batch.advantage.size
        size = min(minibatch_size, number)

        def loss(params: PyTree, mini: Batch) -> Array:
            log_probs = jax.vmap(distribution.log_probs, (None, 0))(params, mini.info.draw)
            ratio = jnp.exp(log_probs - mini.info.log_probs)
            advantage = mini.advantage[:, None]
            clipped = jnp.clip(ratio, 1.0 - clip, 1.0 + clip)
            gain = jnp.sum(jnp.minimum(ratio * advantage, clipped * advantage), axis=1)
            return -jnp.sum(mini.weight * gain) / jnp.maximum(jnp.sum(mini.weight), 1.0)

        def minibatch(state: State, places: Array) -> tuple[State, None]:
            mini = jax.tree.map(lambda x: x[places], batch)
            return descend(state, optimizer, jax.grad(loss)(state.params, mini)), None

        def order(key: Key) -> Array:
            return jax.random.permutation(key, number)[: number // size * size].reshape(-1, size)

        places = jax.vmap(order)(jax.random.split(key, epochs)).reshape(-1, size)
        return jax.lax.scan(minibatch, state, places)[0]

    return _policy_gradient(
        space, distribution, learning_rate, entropy_weight, optimizer, num_best,
        (), lambda nothing, scores, valid: (nothing, z_score(scores, valid)), learn,
    )  # fmt: skip


def descend(state: State, optimizer: Optimizer, gradient: PyTree) -> State:
    """Take a step of the optimiser against the gradient of a loss."""
    with jax.numpy_dtype_promotion("standard"):  # optax's optimisers mix dtypes
        transformation = optimizer(state.hyper.learning_rate)
        updates, optimizer_state = transformation.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
    return state._replace(params=params, optimizer=optimizer_state)


def _policy_gradient(
    space: Space,
    distribution: Distribution,
    learning_rate: float,
    entropy_weight: float,
    optimizer: Optimizer,
    num_best: int,
    averages: PyTree,
    advantages: Callable[[PyTree, Array, Array], tuple[PyTree, Array]],
    learn: Callable[[Key, State, Batch], State],
) -> Controller:
    """Return the controller: `advantages` rates scores [N], `learn` moves the parameters.

    `averages` is what `advantages` starts from, of which it returns the new one too.
    """
    hyper = (
        _checks.positive("learning_rate", learning_rate),
        _checks.real("entropy_weight", entropy_weight, 0.0),
    )
    num_best = _checks.integer("num_best", num_best, 1)
    _checks.function_of("optimizer", optimizer, "the learning rate", "optax.adam")

    def init(key: Key) -> State:
        k_params, k_latest = jax.random.split(key)
        params, values = distribution.init(k_params), (jnp.asarray(x, jnp.float32) for x in hyper)
        learning_rate, entropy_weight = values
        return State(
            params=params,
            optimizer=first_state(optimizer, learning_rate, params),
            averages=averages,
            latest=nothing_yet(space, k_latest, num_best),
            hyper=Hyper(learning_rate, entropy_weight),
        )

    def propose(key: Key, plan: PyTree, i: Array) -> tuple[Genotype, Info]:
        del i
        info = Info(*distribution.sample(key, plan))
        return as_genotype(space, info.draw), info

    def update(
        key: Key, state: State, genotypes: Genotype, info: Info, scores: Array, valid: Array
    ) -> tuple[State, Metrics]:
        found = latest(state.latest, genotypes, scores, valid)
        scores = jnp.where(valid, scores, 0.0)
        seen, advantage = advantages(state.averages, scores, valid)
        weight = valid.astype(jnp.float32)
        log_prob = jnp.sum(info.log_probs, axis=1)
        entropy = -jnp.sum(weight * log_prob) / jnp.maximum(jnp.sum(weight), 1.0)
        advantage = advantage - state.hyper.entropy_weight * (log_prob + entropy)
        batch = Batch(info, advantage, weight)
        moved = learn(key, state._replace(averages=seen), batch)
        # What overflows, in the squares that Adam keeps say, would silence all later scores.
        learnt = jax.tree.leaves((moved.params, moved.optimizer, moved.averages))
        sound = jnp.stack([jnp.isfinite(x).all() for x in learnt]).all()
        told = (spread(scores, valid) > 0) & sound
        new = jax.tree.map(lambda x, y: jnp.where(told, x, y), moved, state)
        return new._replace(latest=found), {"entropy": entropy}

    def best(state: State) -> tuple[Genotype, Array]:
        return after(as_genotype(space, distribution.mode(state.params)), state.latest)

    return Controller(
        space=space,
        init=init,
        prepare=lambda key, state: state.params,
        propose=propose,
        update=update,
        best=best,
    )
