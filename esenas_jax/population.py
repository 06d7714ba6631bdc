"""From one candidate to N: functions of an index, vectorised and chunked.

Nothing here depends on what a candidate is; a generation's weights never exist at once.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.rollout import rollout
from esenas_jax.strategies.strategy import Total
from esenas_jax.tasks.task import Apply, Episodes, Task
from esenas_jax.types import Array, Evaluation, Key, PyTree

# candidate id -> the network it acts with, and the key of its episodes
Bound = Callable[[Array], tuple[PyTree, Key]]


@dataclasses.dataclass(frozen=True)
class Population:
    """How much of a generation is done at a time; no result depends on it but by rounding.

    Args:
        lanes: L, episodes simulated (or single-shot candidates evaluated) at a time, at least 1.
            Fewer lanes waste fewer steps on episodes that have ended, more lanes make better use
            of wide hardware.
        refill_every: actions between two looks at which lanes have ended, at least 1.
        chunk: directions whose noise exists at a time, at least 1.

    Raises:
        TypeError, ValueError: if a number is outside its range.
    """

    lanes: int = 64
    refill_every: int = 16
    chunk: int = 32

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _checks.integer(field.name, getattr(self, field.name), 1)

    def evaluate(
        self, task: Task, reference: Array, bound: Bound, apply: Apply, ids: Array
    ) -> Evaluation:
        """Evaluate candidates.

        Args:
            task: what they are asked to do.
            reference: float32 [O], what observation sums are relative to.
            bound: candidate id -> (network, key).
            apply: network, observation [O] -> action [A].
            ids: int32 [N].

        Returns:
            The evaluations [N], with `statistics` summed over them.
        """
        if isinstance(task, Episodes):
            return self._episodes(task, reference, bound, apply, ids)

        def one(i: Array) -> Evaluation:
            network, key = bound(i)
            seen = task.evaluate(key, network, apply)
            if not isinstance(seen, Evaluation):
                raise TypeError(
                    f"a task's evaluate must return an Evaluation (see tasks.single_score), "
                    f"got {type(seen).__name__}."
                )
            return seen

        return self.map(one, ids, self.lanes)._replace(statistics=())

    def _episodes(
        self, task: Episodes, reference: Array, bound: Bound, apply: Apply, ids: Array
    ) -> Evaluation:
        repeats = task.episodes

        def start(episode: Array) -> tuple[PyTree, Key]:
            network, key = bound(ids[episode // repeats])
            return network, jax.random.fold_in(key, episode % repeats)

        totals, sums = rollout(
            task,
            reference,
            start,
            apply,
            num_episodes=ids.size * repeats,
            lanes=self.lanes,
            refill_every=self.refill_every,
        )
        totals = jax.tree.map(lambda x: x.reshape(ids.size, repeats), totals)
        steps = jnp.sum(totals.steps, axis=1)
        episode_return = jnp.mean(totals.reward, axis=1)
        without_bonus = jnp.mean(totals.reward - totals.bonus, axis=1)
        return Evaluation(
            episode_return=episode_return,
            return_without_bonus=without_bonus,
            steps=steps,
            episode_length=steps.astype(jnp.float32) / repeats,
            failed=~(jnp.isfinite(episode_return) & jnp.isfinite(without_bonus)),
            statistics=sums,
        )

    def map(self, f: Callable[[Array], PyTree], ids: Array, chunk: int) -> PyTree:
        """Return f(i) for every id, `chunk` at a time, stacked on a leading axis [N]."""
        return jax.lax.map(f, ids, batch_size=min(chunk, ids.size))

    def total(self, num_directions: int) -> Total:
        """Return the function that sums f(d) over the directions, `chunk` at a time."""
        chunk = min(self.chunk, num_directions)
        starts = jnp.arange(0, num_directions, chunk, dtype=jnp.int32)

        def total(f: Callable[[Array], PyTree]) -> PyTree:
            def one(d: Array) -> PyTree:
                inside = d < num_directions
                value = f(jnp.minimum(d, num_directions - 1))
                return jax.tree.map(lambda x: jnp.where(inside, x, jnp.zeros_like(x)), value)

            def add(carry: PyTree, start: Array) -> tuple[PyTree, None]:
                block = jax.vmap(one)(start + jnp.arange(chunk, dtype=jnp.int32))
                return jax.tree.map(lambda c, x: c + jnp.sum(x, axis=0), carry, block), None

            shapes = jax.eval_shape(f, starts[0])
            zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
            return jax.lax.scan(add, zero, starts)[0]

        return total
