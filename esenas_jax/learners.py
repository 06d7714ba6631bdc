"""A population of learners: each a whole search, and a rule by which they learn from each other.

    step(run_key, state): every learner makes a generation; every k generations the rule follows

The learner in slot m has the key fold_in(run_key, m), so a clone goes its own way at once.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from esenas_jax import _checks
from esenas_jax.population import AXIS, EVERYWHERE, sharded
from esenas_jax.rules import Moved, Rule, compose
from esenas_jax.rules.rule import each, taken
from esenas_jax.runs import all_of, by_run
from esenas_jax.search import Metrics, Search, SearchState
from esenas_jax.types import Array, Key, PyTree, Stream, stream


class LearnersState(NamedTuple):
    """Everything that the next generation needs. Its tree, shapes and dtypes never change."""

    generation: Array  # int32 []
    learners: SearchState  # [M]
    memory: PyTree  # of the rule
    discarded: Array  # int32 [], generations in a row that every learner discarded

    def rewound(self, lost: Array) -> "LearnersState":
        """Return the state before the last `lost` generations, if all of them were discarded."""
        return self._replace(
            generation=self.generation - lost,
            learners=self.learners.rewound(lost[..., None]),
            discarded=self.discarded - lost,
        )


class Learners(NamedTuple):
    """A population of learners: what it is made of, and its functions, pure and made for jit."""

    search: Search  # of each of them
    number: int  # M
    devices: int  # that share them out
    init: Callable[[Key], LearnersState]
    step: Callable[[Key, LearnersState], tuple[LearnersState, Metrics]]
    run: Callable[[Key, LearnersState, int], tuple[LearnersState, Metrics]]

    @property
    def shards(self) -> int:
        """The pieces that devices share a generation out in."""
        return max(self.devices, self.search.shards)

    def deployed(self, state: LearnersState) -> SearchState:
        """Return the learner whose incumbent scored highest: what `choose_answer` takes."""
        return taken(state.learners, jnp.argmax(state.learners.incumbent.score))


def learners(
    search: Search, number: int, rule: Rule | None = None, *, every: int = 1, devices: int = 1
) -> Learners:
    """Return the population of learners of a search.

    Args:
        search: what each of them is: an ARS, ES or ES-ENAS learner.
        number: M, at least as many as the rule takes.
        rule: how they learn from each other; by default not at all.
        every: k, the rule is applied after generations k, 2k, ...
        devices: how many of `jax.devices()` share the learners out, a divisor of M. Generations
            then end with the rule alone seeing all of them, weights included.

    Returns:
        The functions of the population. Metrics are those of the learner that scored best in the
        generation, but `steps`, `episodes` and `failed` are of all learners; `strategy` holds the
        mean and standard deviation of their scores, and the rule's own metrics, NaN where it was
        not applied.

    Raises:
        TypeError, ValueError: in one sentence, if it cannot be.

    Example:
        >>> import jax
        >>> from esenas_jax import controllers, es_enas, policies, rules, strategies, tasks
        >>> task = tasks.polynomial_regression(jax.random.key(1), batch_size=64)
        >>> policy = policies.dense(5, (), 1, output_activation=lambda x: x)
        >>> search = es_enas(
        ...     policy, task, strategies.ars(4, 1), controllers.constant(policy.space)
        ... )
        >>> population = learners(search, 6, rules.culling(), every=2)
        >>> key = jax.random.key(0)
        >>> state, metrics = jax.jit(population.run, static_argnums=2)(key, population.init(key), 3)
        >>> metrics.episodes.tolist()
        [54, 54, 54]
    """
    rule = rule or compose()
    number = _checks.integer("number", number, 1)
    every = _checks.integer("every", every, 1)
    if number < rule.least:
        raise ValueError(f"number must be at least {rule.least} for this rule, got {number}.")
    if search.host:
        raise ValueError(
            f"learners must have a controller on the device: one on the host does one run at a "
            f"time, got number {number}."
        )
    if every % search.propose_every:
        raise ValueError(
            f"every must be a multiple of the search's propose_every, {search.propose_every}: a "
            f"clone would change its architectures within a block, got {every}."
        )
    devices = _checks.devices(devices)
    if number % devices or (devices > 1 and search.shards > 1):
        raise ValueError(
            f"devices can share out learners if their number is a multiple of the devices and no "
            f"generation is shared out itself, got {number} learners, {devices} devices and "
            f"{search.shards} shards."
        )
    steps = number * search.num_candidates * search.task.episodes * search.task.horizon
    if steps >= 2**31:
        raise ValueError(
            f"a generation of all learners must have fewer than 2^31 environment steps, got "
            f"{steps}: {number} learners."
        )
    axes = by_run(search, 0)

    def slots(run_key: Key, mine: Array) -> Key:
        return jax.vmap(lambda m: jax.random.fold_in(run_key, m))(mine)

    def init(run_key: Key) -> LearnersState:
        everyone = jnp.arange(number, dtype=jnp.int32)
        first = jax.vmap(search.init, out_axes=axes)(slots(run_key, everyone))
        return LearnersState(jnp.int32(0), first, rule.init(first, number), jnp.int32(0))

    # A rule that cannot be applied to these learners says so now.
    jax.eval_shape(init, jax.random.key(0))

    def step(run_key: Key, state: LearnersState) -> tuple[LearnersState, Metrics]:
        here = number // devices
        first = 0 if devices == 1 else jax.lax.axis_index(AXIS) * here
        keys = slots(run_key, first + jnp.arange(here, dtype=jnp.int32))
        before = state.learners
        after, metrics = all_of(search)(keys, before)
        metrics = gathered(metrics)
        scores = jnp.where(jnp.isfinite(metrics.exact_score), metrics.exact_score, -jnp.inf)

        def together(memory: PyTree) -> tuple[PyTree, SearchState, dict[str, Array]]:
            # Slots have the keys 0 .. M - 1.
            key = stream(jax.random.fold_in(run_key, number), state.generation, Stream.RULE)
            moved = Moved(gathered(before), gathered(after), scores)
            memory, moved, told = rule.apply(key, memory, moved)
            mine = each(lambda x: jax.lax.dynamic_slice_in_dim(x, first, here), moved.after)
            return memory, mine, told

        def alone(memory: PyTree) -> tuple[PyTree, SearchState, dict[str, Array]]:
            told = jax.eval_shape(together, memory)[2]
            return memory, after, {name: jnp.full((), jnp.nan, jnp.float32) for name in told}

        lost = jnp.all(metrics.discarded > 0)
        # A generation that all discard changes nothing, and moved nobody.
        due = ((state.generation + 1) % every == 0) & ~lost
        memory, after, told = jax.lax.cond(due, together, alone, state.memory)
        discarded = jnp.where(lost, state.discarded + 1, 0)
        best = jax.tree.map(lambda x: x[jnp.argmax(scores)], metrics)
        finite = jnp.isfinite(scores)
        told |= {
            "learners_mean": jnp.mean(scores, where=finite),
            "learners_std": jnp.std(scores, where=finite),
        }
        metrics = best._replace(
            generation=state.generation,
            steps=jnp.sum(metrics.steps, dtype=jnp.int32),
            episodes=jnp.sum(metrics.episodes, dtype=jnp.int32),
            failed=jnp.sum(metrics.failed, dtype=jnp.int32),
            discarded=discarded,
            strategy=best.strategy | told,
        )
        return LearnersState(state.generation + 1, after, memory, discarded), metrics

    def gathered(local: PyTree) -> PyTree:
        """Return what all devices have, by slot."""
        if devices == 1:
            return local
        return each(lambda x: jax.lax.all_gather(x, AXIS, tiled=True), local)

    if devices > 1:
        by_device = PartitionSpec(AXIS)
        states = LearnersState(
            generation=EVERYWHERE,  # pyright: ignore[reportArgumentType]
            learners=by_run(search, by_device, EVERYWHERE),  # pyright: ignore[reportArgumentType]
            memory=EVERYWHERE,
            discarded=EVERYWHERE,  # pyright: ignore[reportArgumentType]
        )
        step = sharded(step, devices, (EVERYWHERE, states), (states, EVERYWHERE))

    def run(run_key: Key, state: LearnersState, generations: int) -> tuple[LearnersState, Metrics]:
        """Carry out several generations; metrics get a leading axis of that length."""
        generations = _checks.integer("generations", generations, 0)
        return jax.lax.scan(lambda s, _: step(run_key, s), state, length=generations)

    return Learners(search, number, devices, init, step, run)
