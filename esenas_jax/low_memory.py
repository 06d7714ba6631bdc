"""Random search in the memory of its weights: one direction at a time, three forward passes.

    losses at theta + nu delta and theta - nu delta: which way, and how far
    loss at where that leads: whether it is kept, as simulated annealing decides

The direction is made again from its key wherever it is needed. Nothing else is kept but a number a
mini-batch, the loss that was last seen on it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from esenas_jax import _checks
from esenas_jax.policies import Policy
from esenas_jax.rules import metropolis
from esenas_jax.strategies import Noise, rademacher
from esenas_jax.tasks.task import SingleShot
from esenas_jax.types import Array, Genotype, Key, PyTree, Stream, stream

Schedule = Callable[[Array], ArrayLike]  # step [] -> factor, as optax's schedules are


class Hyper(NamedTuple):
    """Numbers that can vary from run to run without a new compilation, float32 []."""

    noise_std: Array
    step_size: Array
    temperature: Array


class LowMemoryState(NamedTuple):
    """Everything that the next step needs."""

    generation: Array  # int32 [], steps so far
    params: Array  # float32 [P]
    genotype: Genotype  # never changes
    losses: Array  # float32 [B], last seen on each mini-batch; inf before the first time
    noise: PyTree  # what directions are drawn from
    hyper: Hyper
    discarded: Array  # int32 [], steps in a row whose losses were not finite


class LowMemoryMetrics(NamedTuple):
    """What a person wants to know of a step; scalars."""

    generation: Array
    batch: Array  # int32, which mini-batch
    loss: Array  # on it, the mean of both sides of the weights
    moved_loss: Array  # on it, where the step led
    kept: Array  # bool
    importance: Array  # by which the step was multiplied
    temperature: Array
    discarded: Array


class LowMemory(NamedTuple):
    """The functions of the search, pure and made for jit; donate the state."""

    policy: Policy
    task: SingleShot
    num_batches: int  # B
    init: Callable[[Key], LowMemoryState]
    step: Callable[[Key, LowMemoryState], tuple[LowMemoryState, LowMemoryMetrics]]
    run: Callable[[Key, LowMemoryState, int], tuple[LowMemoryState, LowMemoryMetrics]]
    probabilities: Callable[[LowMemoryState], Array]  # of the mini-batches, float32 [B]

    @property
    def shards(self) -> int:
        """One device does it all."""
        return 1


def low_memory(
    policy: Policy,
    task: SingleShot,
    *,
    num_batches: int = 64,
    noise_std: float = 0.01,
    step_size: float = 0.01,
    temperature: float = 1e-3,
    cooling: Schedule | None = None,
    decay: Schedule | None = None,
    priority: float = 0.0,
    correction: float = 1.0,
    uniform_share: float = 0.1,
    noise: Noise | None = None,
) -> LowMemory:
    """Return random search with one direction at a time.

    Step t draws a mini-batch b and a direction delta, and proposes

        theta - step_size w_b (L_b(theta + nu delta) - L_b(theta - nu delta)) / (2 nu) delta,

    which is kept with probability min(1, exp((R_b - L_b) / temperature)), L_b being
    the proposal's loss and R_b what is remembered of that mini-batch: the loss of the weights kept
    when it last came up, where they were (the mean of both sides, if the proposal was not kept, and
    the first time).

    Mini-batches come up in proportion to p_b = (1 - uniform_share) R_b^priority / sum R^priority
    + uniform_share / B (prioritised replay, arXiv 1511.05952, section 3.3, by loss; those never met
    count as the largest), and w_b = (1 / (B p_b))^correction, which at 1 makes the expected
    proposal that of mini-batches drawn uniformly.

    Args:
        policy: the network, whose architecture is drawn once.
        task: single-shot: its loss, of which the score is the negative, is at least 0, and equal
            keys mean the same examples. Mini-batch b has a key of its own.
        num_batches: B, at least 1.
        noise_std: nu, positive.
        step_size: positive.
        temperature: in units of the loss, positive.
        cooling: an optax schedule that multiplies the temperature; constant by default.
        decay: one that multiplies the step size.
        priority: exponent of the losses, at least 0, where every mini-batch is as likely.
        correction: of the bias that priorities bring, in [0, 1].
        uniform_share: of the draws that ignore the losses, in (0, 1]: none becomes impossible.
        noise: source of directions, by default `rademacher()` (simultaneous perturbation, Spall
            1992): with it a step takes 2.3 times the memory of the weights for its work, with
            `gaussian()` 8 times, for the random words on the way.

    Raises:
        TypeError, ValueError: if a number is outside its range, the layer sizes do not fit, or the
            task has episodes.

    Example:
        >>> import jax
        >>> from esenas_jax import low_memory, policies, tasks
        >>> task = tasks.polynomial_regression(jax.random.key(1), batch_size=64)
        >>> policy = policies.dense(5, (), 1, output_activation=lambda x: x)
        >>> search = low_memory(policy, task, num_batches=8)
        >>> key = jax.random.key(0)
        >>> run = jax.jit(search.run, static_argnums=2, donate_argnums=1)
        >>> state, metrics = run(key, search.init(key), 100)
        >>> metrics.kept.shape
        (100,)
    """
    if not isinstance(task, SingleShot):
        raise TypeError(
            f"the task must be single-shot, its loss a function of a mini-batch, got "
            f"{type(task).__name__}."
        )
    _checks.sizes(policy, task)
    num_batches = _checks.integer("num_batches", num_batches, 1)
    hyper = (
        _checks.positive("noise_std", noise_std),
        _checks.positive("step_size", step_size),
        _checks.positive("temperature", temperature),
    )
    priority = _checks.real("priority", priority, 0.0)
    correction = _checks.real("correction", correction, 0.0, 1.0)
    uniform_share = _checks.share("uniform_share", uniform_share)
    noise = noise or rademacher()

    def init(run_key: Key) -> LowMemoryState:
        k_params, k_genotype = jax.random.split(stream(run_key, 0, Stream.INIT))
        params = policy.init(k_params)
        return LowMemoryState(
            generation=jnp.int32(0),
            params=params,
            genotype=policy.space.sample(k_genotype),
            losses=jnp.full(num_batches, jnp.inf, jnp.float32),
            noise=noise.init(params.size),
            hyper=Hyper(*(jnp.asarray(x, jnp.float32) for x in hyper)),
            discarded=jnp.int32(0),
        )

    def probabilities(state: LowMemoryState) -> Array:
        met = jnp.isfinite(state.losses)
        largest = jnp.max(jnp.where(met, state.losses, 0.0))
        losses = jnp.where(met, jnp.maximum(state.losses, 0.0), largest)
        # Relative to the largest: a power of it could overflow.
        weights = (losses / jnp.where(largest > 0, largest, 1.0)) ** priority
        weights = jnp.where(largest > 0, weights, 1.0)
        return (1.0 - uniform_share) * weights / jnp.sum(weights) + uniform_share / num_batches

    def step(run_key: Key, state: LowMemoryState) -> tuple[LowMemoryState, LowMemoryMetrics]:
        t, size = state.generation, state.params.size
        p = probabilities(state)
        b = jax.random.choice(stream(run_key, t, Stream.PLAN), num_batches, p=p).astype(jnp.int32)
        examples = jax.random.fold_in(stream(run_key, 0, Stream.START), b)
        direction_key = stream(run_key, t, Stream.NOISE)
        factor = 1.0 if decay is None else jnp.asarray(decay(t), jnp.float32)
        cooled = 1.0 if cooling is None else jnp.asarray(cooling(t), jnp.float32)
        temperature = state.hyper.temperature * cooled

        def along(scale: Array) -> Array:
            """Return the weights moved along the direction, which is made for that alone."""
            return state.params + scale * noise.sample(
                direction_key, state.noise, jnp.int32(0), size
            )

        def loss_at(params: Array) -> Array:
            network = policy.bind(params, state.genotype)
            return -task.evaluate(examples, network, policy.apply).episode_return

        nu = state.hyper.noise_std
        # One after the other, in the same memory.
        plus, minus = jax.lax.map(lambda scale: loss_at(along(scale)), jnp.stack([nu, -nu]))
        importance = (1.0 / (num_batches * p[b])) ** correction
        slope = (plus - minus) / (2.0 * nu)
        proposal = along(-state.hyper.step_size * factor * importance * slope)
        moved_loss = loss_at(proposal)
        mean = (plus + minus) / 2.0
        sound = jnp.isfinite(mean) & jnp.isfinite(proposal).all()
        remembered = jnp.where(jnp.isfinite(state.losses[b]), state.losses[b], mean)
        wants = metropolis(stream(run_key, t, Stream.RULE), moved_loss - remembered, temperature)
        # A loss that is not finite is never kept, whatever the temperature.
        kept = sound & wants & jnp.isfinite(moved_loss)
        seen = jnp.where(kept, moved_loss, jnp.where(sound, mean, state.losses[b]))
        new = state._replace(
            generation=t + 1,
            params=jnp.where(kept, proposal, state.params),
            losses=state.losses.at[b].set(seen),
            discarded=jnp.where(sound, 0, state.discarded + 1),
        )
        return new, LowMemoryMetrics(
            generation=t,
            batch=b,
            loss=mean,
            moved_loss=moved_loss,
            kept=kept,
            importance=importance,
            temperature=temperature,
            discarded=new.discarded,
        )

    def run(
        run_key: Key, state: LowMemoryState, steps: int
    ) -> tuple[LowMemoryState, LowMemoryMetrics]:
        """Carry out several steps; metrics get a leading axis of that length."""
        steps = _checks.integer("steps", steps, 0)
        return jax.lax.scan(lambda s, _: step(run_key, s), state, length=steps)

    return LowMemory(policy, task, num_batches, init, step, run, probabilities)
