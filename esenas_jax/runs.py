"""One program for all that a run does between two looks at it, and for many runs at once.

Runs of one search differ in their keys and in the numbers that their pieces keep in a `hyper` field
of the state. Whatever else they are made of is fixed when the program is compiled.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from esenas_jax import _checks
from esenas_jax.population import AXIS, EVERYWHERE, sharded
from esenas_jax.search import Metrics, Search
from esenas_jax.tasks.task import Episodes
from esenas_jax.types import Array, Key, PyTree, Shared

if TYPE_CHECKING:  # they are made of runs
    from esenas_jax.asynchronous import Asynchronous
    from esenas_jax.learners import Learners

MAX_DISCARDED = 3  # generations in a row, in every run; after that nothing will change


# What can be run. The state of each has `generation`, `discarded` and `rewound`.
Searcher: TypeAlias = "Search | Learners | Asynchronous"


class Runs(NamedTuple):
    """The functions of one run, or of M: then everything has a leading [M] but `Shared` parts."""

    # keys, {name: float32 []} of `variable` numbers that differ from the search's -> state
    init: Callable[[Key, Mapping[str, Array]], Any]
    # keys, state, how many generations, at most `capacity` -> state, metrics [capacity]
    advance: Callable[[Key, Any, Array], tuple[Any, Metrics]]


def runs(
    search: Searcher, number: int | None = None, *, devices: int = 1, capacity: int = 64
) -> Runs:
    """Return the functions of runs of a search.

    Args:
        search: what is run.
        number: M, at least 1; None for one run without a leading axis.
        devices: how many of `jax.devices()` share the M runs out, a divisor of M. The other way to
            use several devices is `Population(devices=)`: they share out each generation. Runs on
            other devices do not wait for each other.
        capacity: the most generations that `advance` carries out in a call.

    Returns:
        Pure functions, made for jit. On one device `advance` stops early when `MAX_DISCARDED`
        generations in a row were discarded in every run; rows of metrics past the last are 0.

    Raises:
        TypeError, ValueError: if a number is outside its range.
    """
    capacity = _checks.integer("capacity", capacity, 1)
    init, step = search.init, search.step
    if number is not None:
        number = _checks.integer("number", number, 1)
    devices = _checks.devices(devices)
    if devices > 1 and (number is None or number % devices or search.shards > 1):
        raise ValueError(
            f"devices can share out runs if their number is a multiple of the devices and no "
            f"generation is shared out itself, got {number or 1} runs, {devices} devices and "
            f"{search.shards} shards."
        )

    def begin(run_key: Key, values: Mapping[str, Array]) -> Any:
        return _vary(init(run_key), values)

    if number is not None:
        axes = by_run(search, 0)
        begin = jax.vmap(begin, out_axes=axes)
        step = all_of(search)
    step = jax.jit(step, inline=True)  # traced once: for its shapes, and for the loop

    def advance(run_key: Key, state: Any, limit: Array) -> tuple[Any, Metrics]:
        metrics = jax.eval_shape(step, run_key, state)[1]
        rows = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), metrics)

        def goes_on(carry: tuple[Array, Any, Metrics]) -> Array:
            done, state, _ = carry
            # What happens to the runs of other devices is not known here.
            hope = jnp.any(state.discarded < MAX_DISCARDED) if devices == 1 else True
            return (done < limit) & hope

        def generation(carry: tuple[Array, Any, Metrics]) -> tuple:
            done, state, rows = carry
            state, row = step(run_key, state)
            return done + 1, state, jax.tree.map(lambda all_, x: all_.at[done].set(x), rows, row)

        return jax.lax.while_loop(goes_on, generation, (jnp.int32(0), state, rows))[1:]

    if devices > 1:
        each, rows = PartitionSpec(AXIS), PartitionSpec(None, AXIS)
        states = by_run(search, each, EVERYWHERE)
        begin = sharded(begin, devices, (each, each), states)
        advance = sharded(advance, devices, (each, states, EVERYWHERE), (states, rows))
    return Runs(begin, advance)


def all_of(search: Searcher) -> Callable[[Key, Any], tuple[Any, Metrics]]:
    """Return a generation of all runs, or learners: keys [M], states [M] -> states, metrics [M].

    Episodes of all runs share the lanes. Single shots end all at once: where the candidates of one
    run fill the lanes, runs take turns, for noise and networks of 64 learners at once would leave
    every cache.
    """
    if (
        not isinstance(search, Search)
        or isinstance(search.task, Episodes)
        or search.num_candidates < search.population.lanes_for(search.task)
    ):
        axes = by_run(search, 0)
        return jax.vmap(search.step, in_axes=(0, axes), out_axes=(axes, 0))
    shared = jax.tree.leaves(by_run(search, False, True))

    def step(run_keys: Key, states: Any) -> tuple[Any, Metrics]:
        leaves, structure = jax.tree.flatten(states)

        def whole(own: list[Array]) -> Any:
            rest = iter(own)
            return structure.unflatten(
                x if s else next(rest) for x, s in zip(leaves, shared, strict=True)
            )

        def own(state: Any) -> list[Array]:
            return [x for x, s in zip(jax.tree.leaves(state), shared, strict=True) if not s]

        def one(given: tuple[Key, list[Array]]) -> tuple[list[Array], Metrics]:
            state, metrics = search.step(given[0], whole(given[1]))
            return own(state), metrics

        after, metrics = jax.lax.map(one, (run_keys, own(states)))
        return whole(after), metrics

    return step


def variable(search: Searcher) -> dict[str, Array]:
    """Return the numbers that can differ between runs of one program, {name: float32 []}.

    Of learners, {name: float32 [M]}: one number is for all of them.
    """
    state = jax.eval_shape(search.init, jax.random.key(0))
    return {
        name: leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        if (name := _hyper_name(path))
    }


def _vary(state: PyTree, values: Mapping[str, Array]) -> PyTree:
    """Return the state with these numbers in place of its own."""
    paths, structure = jax.tree_util.tree_flatten_with_path(state)
    names = [_hyper_name(path) for path, _ in paths]
    if unknown := set(values) - set(names):
        known = ", ".join(name for name in names if name)
        raise ValueError(f"runs can differ in {known}, got {', '.join(sorted(unknown))}.")
    return structure.unflatten(
        jnp.broadcast_to(jnp.asarray(values[name], x.dtype), x.shape)
        if name and name in values
        else x
        for name, (_, x) in zip(names, paths, strict=True)
    )


def _hyper_name(path: tuple) -> str | None:
    """Return "strategy.noise_std" for the leaf strategy.hyper.noise_std, None for what is none."""
    names = jax.tree_util.keystr(path, simple=True, separator=".").split(".")
    # What was, and what rules remember, is made from what is.
    if "hyper" not in names or names[0] in ("past", "memory"):
        return None
    return ".".join(name for name in names if name not in ("hyper", "learners", "now"))


def by_run(search: Searcher, each: PyTree, shared: PyTree = None) -> PyTree:
    """Return a state's tree with `each` for every leaf, and `shared` for what runs share."""
    state = jax.eval_shape(search.init, jax.random.key(0))
    return jax.tree.map(
        lambda x: (
            Shared(jax.tree.map(lambda _: shared, x.value)) if isinstance(x, Shared) else each
        ),
        state,
        is_leaf=lambda x: isinstance(x, Shared),
    )
