"""From one candidate to N: functions of an index, vectorised, chunked, and sharded over devices.

Nothing here depends on what a candidate is; only the candidates that are evaluated exist. Devices
tell each other scores and sums: whatever else one of them needs, it makes.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from esenas_jax import _checks
from esenas_jax.rollout import rollout
from esenas_jax.strategies.strategy import Total
from esenas_jax.tasks.task import Apply, Episodes, Lens, SingleShot, Task
from esenas_jax.types import Array, Evaluation, Key, Part, PyTree

# what is given, candidate id -> the network it acts with, and the key of its episodes; of a
# single-shot task: candidate ids [n] -> networks [n], and what makes the key of a candidate id. If
# n is even, the ids are pairs: 2d and 2d + 1, or the last id twice.
# What candidates share, the examples of equal keys say, is then made once for all of them.
Bound = Callable[[PyTree, Array], tuple[PyTree, Any]]
# what is given, candidate id -> what its observations are seen through
Lenses = Callable[[PyTree, Array], Lens]

PAIR = 2  # candidates that a strategy makes from the same noise, 2d and 2d + 1
AXIS = "devices"
EVERYWHERE = PartitionSpec()  # of an array that every device has as a whole


class Width(NamedTuple):
    """How much of a generation a kind of device does at a time, unless `Population` sets it."""

    lanes: int  # of episodes that may end early
    lanes_endless: int  # of episodes that all last as long
    lanes_single_shot: int
    chunk: int  # of directions, fewer where they have more than `CHUNK_NUMBERS` numbers
    noise_bytes: int


# `benchmarks.lanes` measured these lanes on CPUs. Where no episode ends before the others, many
# lanes are better used; where some do, few lanes wait less for the last.
CPU = Width(32, 128, 32, 32, noise_bytes=2**26)
# Measured on an H200 with episodes of ant and hopper (docs/accelerators.md): twice as many lanes do
# at most 9 % more steps a second, for twice the memory. TPUs have the same numbers, unmeasured.
WIDE = Width(32_768, 32_768, 4096, 4096, noise_bytes=2**29)
CHUNK_NUMBERS = 2**28  # 1 GiB
REFILL_EVERY = 8


@dataclasses.dataclass(frozen=True)
class Population:
    """How much of a generation is done at a time, and where; results depend on it by rounding only.

    A generation is cut into shards: one for every device, or V virtual ones, which devices carry
    out one after the other. A shard does the same work at the same shapes wherever it runs, and
    sums over shards are taken in their order, so with V fixed a run is the same bits on any number
    of devices. On a CPU that takes XLA_FLAGS=--xla_cpu_max_isa=AVX: XLA fuses programs for one
    device and for many differently, and within a fusion it contracts a product and a sum to one
    rounding wherever the processor can.

    Args:
        lanes: L, episodes simulated (or single-shot candidates evaluated) at a time in a shard, at
            least 1; no more are run than there are episodes. Fewer lanes waste fewer steps on
            episodes that have ended, more lanes make better use of wide hardware. Each lane has
            weights of its own. By default what `CPU` or `WIDE` says; on a CPU no more than half of
            the episodes of a shard, where they end early. Of single-shot candidates an even number
            is evaluated at a time, unless L is 1.
        refill_every: actions between two looks at which lanes have ended, at least 1; by default
            `REFILL_EVERY`.
        chunk: directions of a shard that are added up at a time, at least 1; by default what `CPU`
            or `WIDE` says, but no more than have `CHUNK_NUMBERS` numbers.
        noise_bytes: the most bytes of noise that a generation of single-shot candidates keeps from
            their evaluation to the update, if it is costly to draw; 0 keeps none, and draws it
            twice. Each of several runs in one program keeps as much. By default what `CPU` or
            `WIDE` says. Nothing is kept where there are several shards.
        devices: how many of `jax.devices()` to use, the first ones. A device of a CPU holds 32
            executions: a loop that sends more generations ahead than that without waiting for one
            can leave XLA without a thread for the first, and the process ends.
        virtual_shards: V, a multiple of `devices`; by default one shard a device.

    Raises:
        TypeError, ValueError: if a number is outside its range.
    """

    lanes: int | None = None
    refill_every: int | None = None
    chunk: int | None = None
    noise_bytes: int | None = None
    devices: int = 1
    virtual_shards: int | None = None

    def __post_init__(self) -> None:
        for name in ("lanes", "refill_every", "chunk"):
            if (value := getattr(self, name)) is not None:
                _checks.integer(name, value, 1)
        if self.noise_bytes is not None:
            _checks.integer("noise_bytes", self.noise_bytes, 0)
        _checks.devices(self.devices)
        if self.virtual_shards is not None:
            shards = _checks.integer("virtual_shards", self.virtual_shards, 1)
            if shards % self.devices:
                raise ValueError(
                    f"virtual_shards must be None or a multiple of devices, {self.devices}, got "
                    f"{shards}."
                )

    def lanes_for(self, task: Task, episodes: int | None = None) -> int:
        """Return L, where there are as many episodes.

        Args:
            task: what is done in them.
            episodes: how many a shard has, if that is known. On a CPU half of them are started at
                first, where they end early: the others fill the lanes of those that ended.
        """
        if self.lanes:
            return self.lanes
        width = width_of_device()
        if not isinstance(task, Episodes):
            return width.lanes_single_shot
        if task.environment.endless:
            return width.lanes_endless
        if width is CPU and episodes is not None:
            return min(width.lanes, -(-episodes // 2))
        return width.lanes

    def chunk_for(self, value: PyTree) -> int:
        """Return how many directions are added up at a time, where each is worth such a value."""
        size = sum(leaf.size for leaf in jax.tree.leaves(value))
        return self.chunk or max(1, min(width_of_device().chunk, CHUNK_NUMBERS // max(size, 1)))

    @property
    def noise_bytes_used(self) -> int:
        """The most bytes of noise that a run keeps from evaluation to update."""
        return width_of_device().noise_bytes if self.noise_bytes is None else self.noise_bytes

    @property
    def refill_used(self) -> int:
        """How many actions lie between two looks at which lanes have ended."""
        return self.refill_every or REFILL_EVERY

    @property
    def shards(self) -> int:
        """S, the number of pieces that a generation is cut into."""
        return self.virtual_shards or self.devices

    def spread(self, f: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """Return f carried out by all devices: each sees all arguments and returns all results.

        Inside, `evaluate` and `total` share the work out.
        """
        return f if self.shards == 1 else sharded(f, self.devices)

    def evaluate(
        self, task: Task, given: PyTree, bound: Bound, lens: Lenses, apply: Apply, ids: Array
    ) -> Evaluation:
        """Evaluate candidates; to be called inside `spread`.

        Under `vmap` over runs the episodes of all of them share the lanes: no run waits for another
        whose episodes last longer. So what differs between runs is given, not closed over. Single
        shots are those of one run after another, or of as many runs at a time as fit into the
        lanes: of 64 learners, what networks compute would else exceed every cache.

        Args:
            task: what they are asked to do.
            given: whatever `bound` and `lens` need of a run.
            bound: given, candidate id -> (network, key); for a single-shot task given, ids [n] ->
                (networks [n], id -> key).
            lens: given, candidate id -> what its observations are seen through; episodes only.
            apply: network, observation [O] as seen -> action [A].
            ids: int32 [N], the same for all runs.

        Returns:
            The evaluations [N], with `statistics` summed over them.

        Raises:
            ValueError: if ids differ between runs.
        """
        if not isinstance(task, Episodes):
            return self._single_shots_of_runs(task, given, bound, apply, ids)

        @jax.custom_batching.custom_vmap
        def alone(given: PyTree, ids: Array) -> Evaluation:
            seen = self._episodes(task, lambda run: given, 1, bound, lens, apply, ids)
            return jax.tree.map(lambda x: x[0], seen)

        @alone.def_vmap
        def _(
            runs: int, batched: list[PyTree], given: PyTree, ids: Array
        ) -> tuple[Evaluation, PyTree]:
            _same_ids(batched[1])

            def given_to(run: Array) -> PyTree:
                return jax.tree.map(lambda x, b: x[run] if b else x, given, batched[0])

            seen = self._episodes(task, given_to, runs, bound, lens, apply, ids)
            return seen, jax.tree.map(lambda _: True, seen)

        return alone(given, ids)

    def _single_shots_of_runs(
        self, task: SingleShot, given: PyTree, bound: Bound, apply: Apply, ids: Array
    ) -> Evaluation:
        @jax.custom_batching.custom_vmap
        def alone(given: PyTree, ids: Array) -> Evaluation:
            return self._single_shots(task, given, bound, apply, ids)

        @alone.def_vmap
        def _(
            runs: int, batched: list[PyTree], given: PyTree, ids: Array
        ) -> tuple[Evaluation, PyTree]:
            _same_ids(batched[1])

            def one(run: Array) -> Evaluation:
                mine = jax.tree.map(lambda x, b: x[run] if b else x, given, batched[0])
                return self._single_shots(task, mine, bound, apply, ids)

            at_a_time = min(runs, self.lanes_for(task) // ids.size)
            together = {"batch_size": at_a_time} if at_a_time > 1 else {}
            seen = jax.lax.map(one, jnp.arange(runs, dtype=jnp.int32), **together)
            return seen, jax.tree.map(lambda _: True, seen)

        return alone(given, ids)

    def _single_shots(
        self, task: SingleShot, given: PyTree, bound: Bound, apply: Apply, ids: Array
    ) -> Evaluation:
        def one(network: PyTree, key: Key) -> Evaluation:
            with jax.named_scope(Part.PHYSICS):
                seen = task.evaluate(key, network, apply)
            if not isinstance(seen, Evaluation):
                raise TypeError(
                    f"a task's evaluate must return an Evaluation (see tasks.single_score), "
                    f"got {type(seen).__name__}."
                )
            return seen._replace(statistics=())

        def some(ids: Array) -> Evaluation:
            networks, key = bound(given, ids)
            # A key that does not depend on i is not mapped, nor is what the task draws from it.
            return jax.vmap(lambda network, i: one(network, key(i)))(networks, ids)

        def shard(places: Array, _: Array | int) -> Evaluation:
            lanes = min(self.lanes_for(task), places.size)
            lanes -= lanes % PAIR if lanes > PAIR else 0  # the halves of a pair stay together
            mine, whole = ids[places], places.size // lanes * lanes
            seen = jax.lax.map(some, mine[:whole].reshape(-1, lanes))
            seen = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), seen)
            if whole == mine.size:
                return seen
            rest = some(mine[whole:])
            return jax.tree.map(lambda *x: jnp.concatenate(x), seen, rest)

        return self._in_order(self._shards(shard, ids.size, PAIR), ids.size)

    def _episodes(
        self,
        task: Episodes,
        given_to: Callable[[Array], PyTree],
        runs: int,
        bound: Bound,
        lens: Lenses,
        apply: Apply,
        ids: Array,
    ) -> Evaluation:
        """Evaluate the candidates of all runs; every field of the result has a leading [runs]."""
        repeats = task.episodes

        def shard(places: Array, count: Array | int) -> Evaluation:
            mine = ids[places]
            shape = (mine.size, runs, repeats)

            def owner(episode: Array) -> tuple[PyTree, Array]:
                return given_to(episode // repeats % runs), mine[episode // (runs * repeats)]

            def start(episode: Array) -> tuple[PyTree, Key]:
                network, key = bound(*owner(episode))
                return network, jax.random.fold_in(key, episode % repeats)

            totals, sums = rollout(
                task,
                start,
                lambda episode: lens(*owner(episode)),
                apply,
                num_episodes=math.prod(shape),
                to_run=count * runs * repeats,
                lanes=self.lanes_for(task, math.prod(shape)),
                refill_every=self.refill_used,
            )
            totals = jax.tree.map(lambda x: x.reshape(shape), totals)
            steps = jnp.sum(totals.steps, axis=2, dtype=jnp.int32)
            episode_return = jnp.mean(totals.reward, axis=2)
            without_bonus = jnp.mean(totals.reward - totals.bonus, axis=2)
            return Evaluation(
                episode_return=episode_return,
                return_without_bonus=without_bonus,
                steps=steps,
                episode_length=steps.astype(jnp.float32) / repeats,
                failed=~(jnp.isfinite(episode_return) & jnp.isfinite(without_bonus)),
                # [n * runs * R, ...] -> [runs, ...]
                statistics=jax.tree.map(
                    lambda x: x.reshape(*shape, *x.shape[1:]).sum(axis=(0, 2)), sums
                ),
            )

        seen = self._shards(shard, ids.size)
        sums = self._sum(seen.statistics)
        seen = self._in_order(seen._replace(statistics=()), ids.size)
        seen = jax.tree.map(lambda x: x.swapaxes(0, 1), seen)
        return seen._replace(statistics=sums)

    def total(self, num_directions: int) -> Total:
        """Return the function that sums f(d) over the directions; to be called inside `spread`."""

        def total(f: Callable[[Array], PyTree]) -> PyTree:
            shapes = jax.eval_shape(f, jax.ShapeDtypeStruct((), jnp.int32))
            zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

            def shard(directions: Array, count: Array | int) -> PyTree:
                chunk = min(self.chunk_for(shapes), directions.size)
                starts = jnp.arange(0, directions.size, chunk, dtype=jnp.int32)

                def one(place: Array) -> PyTree:
                    value = f(directions[jnp.minimum(place, directions.size - 1)])
                    return jax.tree.map(
                        lambda x: jnp.where(place < count, x, jnp.zeros_like(x)), value
                    )

                def add(carry: PyTree, start: Array) -> tuple[PyTree, None]:
                    block = jax.vmap(one)(start + jnp.arange(chunk, dtype=jnp.int32))
                    return jax.tree.map(lambda c, x: c + jnp.sum(x, axis=0), carry, block), None

                return jax.lax.scan(add, zero, starts)[0]

            return self._sum(self._shards(shard, num_directions))

        return total

    # --- shards -----------------------------------------------------------------------------------

    def _shards(
        self, work: Callable[[Array, Array | int], PyTree], size: int, multiple: int = 1
    ) -> PyTree:
        """Return what this device's shards make of places 0 .. size - 1, stacked in their order.

        `work` gets the places of a shard, as many in every shard, and how many of them are real.
        How many there are in a shard is a multiple of `multiple`.
        """
        each = -(-size // (self.shards * multiple)) * multiple
        if self.shards == 1:
            alone = work(jnp.minimum(jnp.arange(each, dtype=jnp.int32), size - 1), size)
            return jax.tree.map(lambda x: x[None], alone)
        work = jax.jit(work, inline=True)  # traced once: for its shapes, and for the loop
        here = self.shards // self.devices
        first = jax.lax.axis_index(AXIS) * here

        def shard(k: Array, done: PyTree) -> PyTree:
            s = first + k
            places = s * each + jnp.arange(each, dtype=jnp.int32)
            made = work(jnp.minimum(places, size - 1), jnp.clip(size - s * each, 0, each))
            return jax.tree.map(lambda all_, mine: all_.at[k].set(mine), done, made)

        shapes = jax.eval_shape(work, jnp.arange(each, dtype=jnp.int32), jnp.int32(each))
        empty = jax.tree.map(lambda x: jnp.zeros((here, *x.shape), x.dtype), shapes)
        # The compiler must not know how often the loop runs: it would take a loop of one apart, and
        # round differently on as many devices as there are shards.
        return jax.lax.fori_loop(0, jax.lax.optimization_barrier(jnp.int32(here)), shard, empty)

    def _in_order(self, local: PyTree, size: int) -> PyTree:
        """Return what all shards made, by place [size, ...]."""
        # Places past the last are the padding of shards that have less to do.
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:size], self._gather(local))

    def _gather(self, local: PyTree) -> PyTree:
        """Return what all shards made [S, ...] from what those of this device made."""
        if self.devices == 1:
            return local
        return jax.lax.all_gather(local, AXIS, tiled=True)

    def _sum(self, local: PyTree) -> PyTree:
        """Return the sum over all shards: in their order if they are virtual."""
        if self.virtual_shards is None:
            local = jax.tree.map(lambda x: x[0], local)
            return local if self.devices == 1 else jax.lax.psum(local, AXIS)

        def add(total: PyTree, shard: PyTree) -> tuple[PyTree, None]:
            return jax.tree.map(jnp.add, total, shard), None

        everyone = self._gather(local)
        zero = jax.tree.map(lambda x: jnp.zeros_like(x[0]), everyone)
        return jax.lax.scan(add, zero, everyone, length=self.shards)[0]


def width_of_device() -> Width:
    """Return how much the device that JAX uses by default does at a time."""
    return CPU if jax.default_backend() == "cpu" else WIDE


def sharded(
    f: Callable[..., PyTree],
    devices: int,
    in_specs: PyTree = EVERYWHERE,
    out_specs: PyTree = EVERYWHERE,
) -> Callable[..., PyTree]:
    """Return f carried out by several devices, each on its part of the arguments.

    Args:
        f: what one device does; f may call collectives over the axis `AXIS`.
        devices: how many of `jax.devices()` to use, the first ones.
        in_specs: one `PartitionSpec` for each argument, or for each part of an argument; by default
            every device receives all arguments.
        out_specs: the same for the results; by default all devices return the same results.
    """
    mesh = Mesh(np.array(jax.devices()[:devices]), (AXIS,))

    @functools.wraps(f)
    def call(*arguments: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(arguments)
        prefix = (EVERYWHERE,) * len(arguments) if _is_spec(in_specs) else in_specs
        specs = jax.tree.map(
            lambda spec, part: jax.tree.map(lambda _: spec, part),
            prefix,
            arguments,
            is_leaf=_is_spec,
        )
        specs = jax.tree.leaves(specs, is_leaf=_is_spec)
        # jaxlib 0.11 crashes when it compiles, for several devices of a CPU, a program with an
        # argument without elements, the genotype of a policy with nothing to search for instance:
        #     f = jax.shard_map(lambda x, e: (jax.lax.psum(jnp.sin(x), "d"), e), ...)
        #     jax.jit(f)(jnp.ones(4), jnp.zeros(0, jnp.int32))
        # So each device makes these arguments. Results without elements do no harm.
        # `test_arguments_without_elements_crash_jaxlib_0_11` fails when a jaxlib behaves otherwise.
        kept = [k for k, x in enumerate(leaves) if not _has_no_elements(x)]

        def on_a_device(given: list[Array]) -> PyTree:
            parts = dict(zip(kept, given, strict=True))
            for k in range(len(leaves)):
                if k not in parts:
                    shape = NamedSharding(mesh, specs[k]).shard_shape(leaves[k].shape)
                    parts[k] = jnp.zeros(shape, jax.dtypes.canonicalize_dtype(leaves[k].dtype))
            return f(*structure.unflatten([parts[k] for k in range(len(leaves))]))

        of_all = jax.shard_map(
            on_a_device,
            mesh=mesh,
            in_specs=([specs[k] for k in kept],),
            out_specs=out_specs,
            check_vma=False,
        )
        return of_all([leaves[k] for k in kept])

    return call


def _is_spec(x: Any) -> bool:
    return isinstance(x, PartitionSpec)


def _has_no_elements(x: Any) -> bool:
    """Return whether x is an array without elements, and not one of keys."""
    return jnp.size(x) == 0 and not jnp.issubdtype(x.dtype, jax.dtypes.extended)


def _same_ids(differ: bool) -> None:
    if differ:
        raise ValueError("runs that share lanes must have the same candidate ids.")
