"""What the source of noise does to convergence: final loss against independent Gaussians.

    python -m benchmarks.noise [--quick] [--json=PATH]

ES with ranks, 32 antithetic directions a generation, on three functions of 1,000 weights, one of
them from two starts. A row is
the ratio of the final loss to the Gaussians', geometric mean over ten pairs of runs of equal seeds,
with its 95 % bootstrap interval: above 1 the source converges worse. Every source has the step size
and noise that are best for it on each function, out of one grid of twelve on three other seeds; the
table has new numbers for every seed.

A shared table is a short cut: slices that overlap make directions depend on each other. The smaller
tables here, 2^11 and 2^13 numbers for perturbations of 1,000, overlap all the time. What that does
is least predictable where the gradient looks the same under a shift, as that of the sphere at a
constant vector does: overlapping slices then have nearly equal scores, and the loss differs widely
from one table to the next.

A functional result, the same on every machine but for rounding. Ten minutes on two cores. --quick
has 100 generations instead of 500: rows of that length are then not measured, and shorter ones
stand beside them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.figures import intervals
from benchmarks.functions import Loss, rastrigin, rosenbrock, search_over_weights, sphere
from benchmarks.measure import Row, command_line, machine, report
from esenas_jax import Population, SearchState, strategies
from esenas_jax.strategies import Noise
from esenas_jax.types import Array, Key
from experiments.command_line import configure_jax

WEIGHTS, DIRECTIONS, FULL = 1_000, 32, 500
SEEDS = range(10)
TUNING_SEEDS = range(100, 103)
NOISE_STDS = (0.01, 0.03, 0.1)
STEPS = (
    0.1,
    0.3,
    1.0,
    3.0,
)  # step size / noise: with ranks, a step is that long, times a constant


def _signs() -> Array:
    return jax.random.rademacher(jax.random.key(1), (WEIGHTS,), jnp.float32)


# name -> (loss, where every run begins)
FUNCTIONS: dict[str, tuple[Loss, Callable[[], Array]]] = {
    "sphere": (sphere, _signs),
    "sphere from ones": (sphere, lambda: jnp.ones(WEIGHTS)),
    "rosenbrock": (rosenbrock, lambda: jnp.zeros(WEIGHTS)),
    "rastrigin": (rastrigin, lambda: 2.3 * _signs()),
}


def _table(log2_size: int) -> Callable[[int], Noise]:
    return lambda seed: strategies.shared_table(2**log2_size, table_seed=seed)


# name -> seed -> source
SOURCES: dict[str, Callable[[int], Noise]] = {
    "gaussian": lambda seed: strategies.gaussian(),
    "rademacher": lambda seed: strategies.rademacher(),
    "hadamard": lambda seed: strategies.hadamard(),
    "shared table, 2^20": _table(20),
    "shared table, 2^16": _table(16),
    "shared table, 2^13": _table(13),
    "shared table, 2^11": _table(11),
}


class Setting(NamedTuple):
    """What was tuned."""

    noise_std: float
    step_size: float


def trainer(
    loss: Loss, start: Callable[[], Array], source: Callable[[int], Noise], generations: int
) -> Callable[[int, Setting], float]:
    """Return the function from a seed and a setting to the loss of the weights in the end."""
    strategy = strategies.es(
        DIRECTIONS,
        0,
        shaping=strategies.centered_ranks,
        noise=source(0),
    )
    search = search_over_weights(loss, start(), strategy, Population(lanes=64, chunk=32))

    @jax.jit
    def run(key: Key, state: SearchState) -> Array:
        return loss(search.run(key, state, generations)[0].strategy.params)

    first = search.init(jax.random.key(0))

    def train(seed: int, setting: Setting) -> float:
        inner = first.strategy
        hyper = type(inner.hyper)(*(jnp.float32(x) for x in setting))
        inner = inner._replace(hyper=hyper, noise=source(seed).init(WEIGHTS))
        return float(run(jax.random.key(seed), first._replace(strategy=inner)))

    return train


def tuned(train: Callable[[int, Setting], float]) -> Setting:
    """Return the setting of the grid with the least mean log loss; one that diverged is worst."""

    def cost(setting: Setting) -> float:
        mean = np.mean([np.log(train(seed, setting)) for seed in TUNING_SEEDS])
        return float(mean) if np.isfinite(mean) else np.inf

    return min((Setting(std, step * std) for std in NOISE_STDS for step in STEPS), key=cost)


def ratio_of_losses(losses: np.ndarray, reference: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Return the geometric mean of the ratios of paired losses [n], and its 95 % interval."""
    logs = np.log(losses) - np.log(reference)
    resampled = np.random.default_rng(0).choice(logs, (10_000, logs.size)).mean(axis=1)
    low, high = np.exp(np.quantile(resampled, (0.025, 0.975)))
    return float(np.exp(logs.mean())), (float(low), float(high))


def convergence(function: str, generations: int) -> list[Row]:
    """Return a row for every source but the first, on one function."""
    rows, reference = [], np.ones(len(SEEDS))
    for name, source in SOURCES.items():
        train = trainer(*FUNCTIONS[function], source, generations)
        setting = tuned(train)
        losses = np.array([train(seed, setting) for seed in SEEDS])
        print(
            f"{function}, {name}: loss {np.median(losses):.4g} [{losses.min():.4g}, "
            f"{losses.max():.4g}] at noise {setting.noise_std:g}, step {setting.step_size:g}."
        )
        if name == "gaussian":
            reference = losses
        else:
            ratio, interval = ratio_of_losses(losses, reference)
            rows.append(Row(_title(function, name, generations), ratio, interval, "x the loss"))
    return rows


def _title(function: str, source: str, generations: int) -> str:
    return f"{function}, {generations:,} generations: {source} / gaussian"


def main() -> None:
    """Measure, print, write."""
    arguments = command_line(__doc__)
    configure_jax()
    rows: list[Row] = []
    for function in FUNCTIONS:
        rows += convergence(function, 100 if arguments.quick else FULL)
        if arguments.quick:
            rows += [
                Row(_title(function, name, FULL), None, None, "x the loss")
                for name in SOURCES
                if name != "gaussian"
            ]
    report(
        "noise",
        rows,
        arguments.json,
        lambda path: intervals(
            [row for row in rows if row.value is not None],
            path,
            "Loss in the end, against independent Gaussians (above 1: worse)",
            f"{WEIGHTS:,} weights, {2 * DIRECTIONS} candidates a generation, each source with its "
            f"own tuning; geometric mean and 95 % interval over {len(SEEDS)} seeds · {machine()}",
        ),
    )


if __name__ == "__main__":
    main()
