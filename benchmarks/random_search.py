"""Random search on supervised tasks: its speed beside PyTorch's, many learners, and what it learns.

    python -m benchmarks.random_search [--quick] [--json=PATH]

Speed of the toy regression: ARS with 32 antithetic directions, 2 elites, batch 2,048, smooth L1,
five weights; the same in PyTorch on as many threads as there are cores, as a loop over directions
and as one matrix product for all of them. Without PyTorch (`pip install -e '.[torch]'` has it)
these rows are not measured.

Learners: the convolutional network of `configs/digits.py` in 1, 2, 4, ..., 64 learners of one
program, culled after every generation: the time of a step, of 64 against the best number of them.

What is learnt: the loss of the regression's answer after 500 generations, with the step of the
config and with one that gets shorter, five seeds each; the test accuracy of the convolutional
network on five splits, each with a seed of its own. These are the same on every machine but for
rounding.

Half an hour on two cores. --quick times one and eight learners alone, and trains no digits.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.ticker import FixedLocator

from benchmarks.figures import COLOURS, lines, new_panels
from benchmarks.measure import PAIRS, Row, command_line, machine, paired_ratio, report
from esenas_jax import (
    Answer,
    Metrics,
    Population,
    Starts,
    choose_answer,
    controllers,
    es_enas,
    learners,
    policies,
    rules,
    strategies,
    tasks,
)
from esenas_jax.runs import Searcher, runs
from experiments.build import build
from experiments.command_line import configure_jax
from experiments.configs import digits as digits_config
from experiments.configs import regression_ars
from experiments.report.figure import INK, LABEL, plain_axes

DIRECTIONS, ELITES, NOISE_STD, STEP_SIZE, BATCH, DEGREE = 32, 2, 0.1, 0.1, 2048, 4
ITERATIONS = 64  # of a call that is timed
LOOP, VECTORISED, LEARNERS = 20.0, 1.0, 1.3  # targets
NUMBERS = (1, 2, 4, 8, 16, 32, 64)
STEPS, TRIALS = 4, 5  # of every learner, in a call; of every number of learners, in pairs
STEP_NAMES = {"constant": "constant step", "decay": "shorter and shorter steps"}
LOSS, ACCURACY = 0.01, 0.95
SEEDS = range(5)


# --- the toy regression beside PyTorch ------------------------------------------------------------


def ours() -> Callable[[], Any]:
    """Return what carries out `ITERATIONS` of ours; nothing evaluates the unperturbed weights."""
    task = tasks.polynomial_regression(jax.random.key(0), degree=DEGREE, batch_size=BATCH)
    policy = policies.dense(
        DEGREE + 1, (), 1, output_activation=policies.identity, weight_init=policies.zeros
    )
    search = es_enas(
        policy,
        task,
        strategies.ars(DIRECTIONS, 0, NOISE_STD, STEP_SIZE, num_elites=ELITES),
        controllers.constant(policy.space),
        population=Population(lanes=2 * DIRECTIONS),
        starts=Starts.GENERATION,
    )
    return going_on(search, None, ITERATIONS)


def going_on(search: Searcher, number: int | None, generations: int) -> Callable[[], Any]:
    """Return what carries out some more generations, in one dispatch, at every call."""
    many = runs(search, number, capacity=generations)
    key = jax.random.key(0) if number is None else jax.random.split(jax.random.key(0), number)
    state = jax.jit(many.init)(key, {})
    advance = jax.jit(many.advance, donate_argnums=1)
    advance = advance.lower(key, state, np.int32(generations)).compile()

    def call() -> Any:
        nonlocal state
        state, metrics = advance(key, state, np.int32(generations))
        return metrics.exact_mean

    return call


def pytorch(torch: Any, vectorised: bool) -> Callable[[], Any]:
    """Return what carries out `ITERATIONS` more in PyTorch, and returns the weights.

    The loop is that of any model: it puts parameters into a module and calls it. What is vectorised
    is written for this one.
    """
    generator = torch.Generator().manual_seed(0)
    target = 5.0 * torch.randn(DEGREE + 1, generator=generator)
    weights = torch.zeros(DEGREE + 1)
    smooth_l1 = torch.nn.functional.smooth_l1_loss

    model = torch.nn.Linear(DEGREE + 1, 1, bias=False)
    put = torch.nn.utils.vector_to_parameters

    def losses_of_a_loop(x: Any, y: Any, noise: Any) -> Any:
        each = []
        for direction in noise:
            pair = []
            for sign in (1.0, -1.0):
                put(weights + sign * NOISE_STD * direction, model.parameters())
                pair.append(smooth_l1(model(x)[:, 0], y))
            each.append(torch.stack(pair))
        return torch.stack(each, dim=1)

    def losses_at_once(x: Any, y: Any, noise: Any) -> Any:
        step = NOISE_STD * noise
        candidates = torch.cat((weights + step, weights - step))
        predicted = candidates @ x.T
        each = smooth_l1(predicted, y.expand_as(predicted), reduction="none").mean(dim=1)
        return each.view(2, -1)

    losses = losses_at_once if vectorised else losses_of_a_loop

    @torch.inference_mode()
    def call() -> Any:
        nonlocal weights
        for _ in range(ITERATIONS):
            x = torch.vander(torch.randn(BATCH, generator=generator), DEGREE + 1, increasing=True)
            noise = torch.randn(DIRECTIONS, DEGREE + 1, generator=generator)
            returns = -losses(x, x @ target, noise)
            elites = returns.amax(dim=0).topk(ELITES).indices
            kept = returns[:, elites]
            ascent = (kept[0] - kept[1]) @ noise[elites]
            weights = weights + STEP_SIZE / (ELITES * kept.std(correction=0)) * ascent
        return weights

    return call


def beside_pytorch(pairs: int) -> list[Row]:
    """Time ours against both forms in PyTorch."""
    names = [
        ("toy regression, PyTorch's loop over directions / ours", False, LOOP),
        ("toy regression, PyTorch vectorised / ours", True, VECTORISED),
    ]
    try:
        import torch
    except ModuleNotFoundError:
        print("PyTorch is not installed, and not measured: pip install -e '.[torch]' has it.")
        return [Row(name, None, None, "x", target, "at_least") for name, _, target in names]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rows, here = [], ours()
    for name, vectorised, target in names:
        ratio, interval, times = paired_ratio(pytorch(torch, vectorised), here, pairs)
        rows.append(Row(name, ratio, interval, "x", target, "at_least"))
        theirs, mine = ITERATIONS / np.median(times, axis=0)
        print(f"{name}: {theirs:,.0f} / {mine:,.0f} iterations a second.")
    return rows


# --- many learners --------------------------------------------------------------------------------


def many_learners(pairs: int, numbers: tuple[int, ...]) -> tuple[Row, dict[int, float]]:
    """Time a learner's step in programs of several numbers of learners.

    Returns:
        The row of 64 learners against the best number, and the median seconds of each number.
    """
    config = digits_config.get_config("cnn")
    config.virtual_shards = None  # one device
    search = build(config)
    programs = {
        number: going_on(
            # A rule after every generation: all of the learners' states are looked at.
            search if number == 1 else learners(search, number, rules.culling()),
            None,
            STEPS,
        )
        for number in numbers
    }
    one, took = programs[1], {}
    for number, program in programs.items():
        _, _, times = paired_ratio(program, one, min(pairs, TRIALS))
        took[number] = float(np.median(times[:, 0])) / (STEPS * number)
        print(f"{number:3d} learners: {1e3 * took[number]:.1f} ms a learner-step.")
    name, most = "digits: a learner-step of 64 learners / of the best number", max(NUMBERS)
    if most not in programs:
        return Row(name, None, None, "x", LEARNERS, "at_most"), took
    best = min(took, key=took.__getitem__)
    # Timed again: what selects cannot estimate.
    ratio, interval, _ = paired_ratio(programs[most], programs[best], pairs)
    each = best / most
    low, high = interval
    return Row(name, each * ratio, (each * low, each * high), "x", LEARNERS, "at_most"), took


# --- what is learnt -------------------------------------------------------------------------------


def trained(config: Any, seed: int, generations: int) -> tuple[Answer, Metrics]:
    """Return the answer of a run of a config, and its metrics [generations]."""
    search, key = build(config), jax.random.key(seed)
    state = jax.jit(search.init)(key)
    state, metrics = jax.jit(search.run, static_argnums=2)(key, state, generations)
    return choose_answer(search, key, state, config.answer_episodes), metrics


def regression(step: str) -> tuple[list[Row], list[np.ndarray]]:
    """Return the loss of every seed, each with a target of its own, and their curves."""
    rows, curves = [], []
    for seed in SEEDS:
        config: Any = regression_ars.get_config(step)
        config.task.target_seed = seed
        answer, metrics = trained(config, seed, config.generations)
        loss = -float(answer.report.episode_return.mean())
        name = f"toy regression, {STEP_NAMES[step]}: loss of the answer, seed {seed}"
        rows.append(exact(name, loss, "smooth L1", LOSS, "at_most"))
        curves.append(-np.asarray(metrics.exact_mean))
    return rows, curves


def digits() -> list[Row]:
    """Return the test accuracy on every split, each with a seed of its own."""
    rows = []
    for seed in SEEDS:
        config: Any = digits_config.get_config("cnn")
        config.task.split_seed = seed
        answer, _ = trained(config, seed, config.generations)
        right = float(answer.report.statistics["test_accuracy"].mean())
        rows.append(exact(_split(seed), right, "test accuracy", ACCURACY, "at_least"))
    return rows


def _split(seed: int) -> str:
    return f"digits, convolutional, ES alone: split {seed}"


def exact(name: str, value: float, unit: str, target: float, direction: Any) -> Row:
    """Return the row of a number that has no spread: that of one seed, and one set of examples."""
    return Row(name, value, (value, value), unit, target, direction)


# --- figure ---------------------------------------------------------------------------------------


def draw(
    curves: dict[str, list[np.ndarray]], took: dict[int, float], accuracies: list[Row], path: Path
) -> None:
    """Draw what was learnt, and what a learner's step takes."""
    measured = [row.value for row in accuracies if row.value is not None]
    panels, finish = new_panels(
        3 if measured else 2, "Random search on supervised tasks", machine()
    )
    handles = []
    for (step, each), colour in zip(curves.items(), COLOURS, strict=False):
        for seed, losses in enumerate(each):
            places = np.unique(np.geomspace(1, losses.size, 60).round().astype(int))
            drawn = lines(
                panels[0],
                {f"{STEP_NAMES[step]}, five seeds": (places.tolist(), losses[places - 1].tolist())},
                "generation",
                "smooth L1 on mini-batches",
                color=colour,
                marker="",
                linewidth=1.2,
            )
            handles += drawn if seed == 0 else []
    panels[0].axhline(LOSS, color=INK, linewidth=1.0, linestyle=(0, (5, 3)))
    panels[0].xaxis.set_major_locator(FixedLocator([1, 10, 100, 500]))
    milliseconds = [1e3 * seconds for seconds in took.values()]
    lines(
        panels[1],
        {"a learner-step": (list(took), milliseconds)},
        "learners in one program",
        "ms a learner-step",
    )
    panels[1].set_ylim(0.5 * min(milliseconds), 2 * max(milliseconds))
    if measured:
        plain_axes(panels[2], "test accuracy")
        panels[2].plot(SEEDS, measured, "o", color=COLOURS[0], markersize=6)
        panels[2].axhline(ACCURACY, color=INK, linewidth=1.0, linestyle=(0, (5, 3)))
        panels[2].set_xticks(list(SEEDS))
        panels[2].set_ylim(min(0.94, *measured) - 0.005, 1.0)
        panels[2].set_xlabel("split", fontsize=LABEL, color=INK)
    finish(handles, path)


def main() -> None:
    """Measure, print, write."""
    arguments = command_line(__doc__)
    configure_jax()
    pairs = 5 if arguments.quick else PAIRS
    rows = beside_pytorch(pairs)
    row, took = many_learners(pairs, (1, 8) if arguments.quick else NUMBERS)
    rows.append(row)
    if arguments.quick:
        # Five pairs decide nothing: the figures are shown, the targets are not judged.
        for row in rows:
            row.interval = None
    curves = {}
    for step in STEP_NAMES:
        more, curves[step] = regression(step)
        rows += more
    if arguments.quick:
        accuracies = [
            Row(_split(seed), None, None, "test accuracy", ACCURACY, "at_least") for seed in SEEDS
        ]
    else:
        accuracies = digits()
    rows += accuracies
    report("random_search", rows, arguments.json, lambda path: draw(curves, took, accuracies, path))


if __name__ == "__main__":
    main()
