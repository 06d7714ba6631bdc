"""evosax's Open_ES and ARS on a sphere: many weights, an evaluation that costs nothing.

Both sides carry out ten generations a call in one compiled program with a donated state, as our
runner does and as a user of evosax can. They start from random signs. From a constant vector, which
looks the same under every shift, slices of one noise table tell less than their number: what that
does is in `benchmarks.noise`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.functions import search_over_weights, sphere
from benchmarks.measure import Row, bootstrap_ratio_of_means, paired_ratio
from esenas_jax import Population, SearchState, strategies
from esenas_jax.strategies import Noise, Strategy
from esenas_jax.types import Array, Key, PyTree

WEIGHTS, CANDIDATES = 10_000, 1024
NOISE, STEP = 0.02, 0.1
A_CALL = 10  # generations
LOSSES = "x the loss"


def on_all_cores() -> Population:
    """Return how a generation is carried out: every core does a part of the directions."""
    return Population(lanes=64, chunk=32, devices=jax.device_count())


def start() -> Array:
    """Return where every run begins, float32 [WEIGHTS]."""
    return jax.random.rademacher(jax.random.key(1), (WEIGHTS,), jnp.float32)


class Side(NamedTuple):
    """A method's fresh state, ten of its generations, and where it has got to."""

    init: Callable[[Key], PyTree]
    run: Callable[[Key, PyTree], PyTree]  # its state is donated
    weights: Callable[[PyTree], Array]


def es(noise: Noise, candidates: int = CANDIDATES) -> Strategy:
    """Return Open_ES's settings: centred ranks, plain gradient steps."""
    return strategies.es(
        candidates // 2, 0, NOISE, STEP, shaping=strategies.centered_ranks, noise=noise
    )


def ars() -> Strategy:
    """Return evosax's ARS: half of the directions kept, plain gradient steps."""
    return strategies.ars(CANDIDATES // 2, 0, NOISE, STEP, num_elites=CANDIDATES // 4)


# name of the row -> (strategy, evosax's algorithm, the target for speed)
MATCHES: dict[str, tuple[Callable[[], Strategy], str, float | None]] = {
    "noise table": (lambda: es(strategies.shared_table()), "Open_ES", 12.0),
    "exact Gaussians": (lambda: es(strategies.gaussian()), "Open_ES", 1.4),
    "Rademacher": (lambda: es(strategies.rademacher()), "Open_ES", None),
    "Hadamard": (lambda: es(strategies.hadamard()), "Open_ES", None),
    "ARS, exact Gaussians": (ars, "ARS", None),
}


def ours(strategy: Strategy, population: Population | None = None) -> Side:
    """Return our side."""
    search = search_over_weights(sphere, start(), strategy, population or on_all_cores())

    def run(key: Key, state: SearchState) -> SearchState:
        return search.run(key, state, A_CALL)[0]

    return Side(
        jax.jit(search.init), jax.jit(run, donate_argnums=1), lambda state: state.strategy.params
    )


def theirs(name: str, candidates: int = CANDIDATES) -> Side:
    """Return evosax's side; it minimises."""
    import evosax.algorithms

    algorithm: Any = getattr(evosax.algorithms, name)(
        candidates,
        start(),
        optimizer=optax.sgd(STEP),
        std_schedule=optax.constant_schedule(NOISE),
    )
    params = algorithm.default_params

    def generation(state: PyTree, key: Key) -> tuple[PyTree, None]:
        k_ask, k_tell = jax.random.split(key)
        population, state = algorithm.ask(k_ask, state, params)
        fitness = jax.vmap(sphere)(population)
        return algorithm.tell(k_tell, population, fitness, state, params)[0], None

    def run(key: Key, state: PyTree) -> PyTree:
        # Its counter tells one call from the next, as ours does.
        key = jax.random.fold_in(key, state.generation_counter)
        return jax.lax.scan(generation, state, jax.random.split(key, A_CALL))[0]

    return Side(
        jax.jit(lambda key: algorithm.init(key, start(), params)),
        jax.jit(run, donate_argnums=1),
        lambda state: state.mean,
    )


def calls(side: Side) -> Callable[[], Array]:
    """Return the function that carries out ten more generations of one run."""
    kept = [side.init(jax.random.key(0))]

    def call() -> Array:
        kept[0] = side.run(jax.random.key(0), kept[0])
        return side.weights(kept[0])

    return call


def losses(side: Side, generations: int, seeds: int) -> np.ndarray:
    """Return the loss of each seed [seeds] after generations from scratch."""
    out = []
    for seed in range(seeds):
        key = jax.random.key(seed)
        state = side.init(key)
        for _ in range(generations // A_CALL):
            state = side.run(key, state)
        out.append(float(sphere(side.weights(state))))
    return np.array(out)


def rows(pairs: int, generations: int, seeds: int, full_generations: int) -> list[Row]:
    """Time generations in turn, and compare losses after equal ones.

    Losses after fewer than `full_generations` are shown; the row of the full number is empty then.
    """
    out: list[Row] = []
    their_losses: dict[str, np.ndarray] = {}
    for name, (strategy, peer, target) in MATCHES.items():
        our_side, their_side = ours(strategy()), theirs(peer)
        ratio, interval, times = paired_ratio(calls(their_side), calls(our_side), pairs)
        ours_ms, theirs_ms = (1000 / A_CALL * float(np.median(times[:, k])) for k in (1, 0))
        print(f"sphere, {name}: ours {ours_ms:.1f} ms a generation, {peer} {theirs_ms:.1f} ms.")
        out.append(
            Row(
                f"sphere, {name}: time, evosax {peer} / ours",
                ratio,
                interval,
                "x",
                target,
                None if target is None else "at_least",
            )
        )
        if peer not in their_losses:
            their_losses[peer] = losses(their_side, generations, seeds)
        mine = losses(our_side, generations, seeds)
        print(f"  loss after {generations}: {_all(mine)}; {peer} {_all(their_losses[peer])}.")
        title = f"sphere, {name}: loss, ours / evosax {peer}, generation "
        held = bootstrap_ratio_of_means(mine, their_losses[peer])
        judged = None if target is None else 1.0
        direction = None if target is None else "at_most"
        out.append(Row(f"{title}{generations}", *held, LOSSES, judged, direction))
        if generations < full_generations:
            out.append(Row(f"{title}{full_generations}", None, None, LOSSES, judged, direction))
    return out


def _all(values: Sequence[float] | np.ndarray) -> str:
    return " ".join(f"{value:,.1f}" for value in values)
