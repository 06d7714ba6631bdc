"""A network that reads digits, made small: what each stage costs in accuracy, and saves in bytes.

    python -m benchmarks.compression [--quick] [--json=PATH]

The convolutional network of `experiments/configs/digits.py`, on ten splits of the data, which no
number here was chosen on (those were chosen on splits from 100 on):

- trained by gradient (Adam, 3,000 mini-batches of 256);
- pruned to a tenth of its weights, by magnitude, and retrained three times as long, to answer as
  the whole network does (distillation); to compare, by labels;
- its weights shared by k-means, 32 a layer: colours of 5 bits;
- trained on by gradient, to answer so too; or
- post-trained by ARS, 300 generations of 32 directions: the shared weights; and, to compare, the
  pruned network, and by labels the whole one; each with additive and with multiplicative noise.

Test accuracy in percent, and its difference from the unpruned network's on the same split, as means
with 95 % bootstrap intervals over splits; of the last stage all of the interval is to be within a
point. The figure has the differences, but for the network that was only pruned, which reads
nothing. Sizes are those of files that are written, read back, and read digits with. What to keep of
a run is chosen on validation data.

Splits lie in runs/compression, and are not done again. Twenty minutes on two cores. --quick has two
splits and a tenth of the training; nothing is then judged.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.figures import intervals
from benchmarks.measure import Row, bootstrap_mean, command_line, machine, remembered, report
from esenas_jax import (
    Population,
    Starts,
    choose_answer,
    controllers,
    es_enas,
    gradient_training,
    policies,
    strategies,
    tasks,
)
from esenas_jax.policies import Policy
from esenas_jax.tasks import SingleShot
from esenas_jax.types import Genotype, Key
from experiments.command_line import configure_jax

SPLITS, AIM = 10, -1.0
LESS = "accuracy less the unpruned network's"
SHARE, BITS = 0.1, 5
TRAIN, RETRAIN, BATCH, RATE, GENERATIONS = 3000, 9000, 256, 3e-3, 300
TEMPERATURE = 4.0  # of the whole network's answers
NOISE = {"additive": (0.02, 0.01), "multiplicative": (0.1, 0.05)}  # noise and step size
STAGES = (
    "pruned",
    "pruned, retrained by labels",
    "pruned, retrained",
    "shared",
    "shared, by gradient",
    *(f"{what}, ARS, {noise} noise" for what in ("whole", "pruned", "shared") for noise in NOISE),
)


def by_gradient(
    policy: Policy,
    task: SingleShot,
    steps: int,
    params: np.ndarray,
    key: Key,
    genotype: Genotype | None = None,
) -> np.ndarray:
    """Return parameters trained on."""
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, steps))
    training = gradient_training(policy, task, steps, optimizer=optimizer, genotype=genotype)
    return np.asarray(jax.jit(training)(key, jnp.asarray(params))[0])


def by_ars(
    policy: Policy,
    genotype: Genotype,
    params: np.ndarray,
    task: SingleShot,
    noise: str,
    generations: int,
    key: Key,
) -> np.ndarray:
    """Return parameters post-trained by augmented random search."""
    noise_std, step_size = NOISE[noise]
    strategy = strategies.ars(
        32, 1, noise_std, step_size, num_elites=16, multiplicative=noise == "multiplicative"
    )
    search = es_enas(
        policy._replace(init=lambda key: jnp.asarray(params)),
        task,
        strategy,
        controllers.constant(policy.space, genotype),
        population=Population(lanes=8),
        starts=Starts.GENERATION,
    )

    @jax.jit
    def run() -> jax.Array:
        state, _ = search.run(key, search.init(key), generations)
        return choose_answer(search, key, state, 2).chosen.params

    return np.asarray(run())


def answers(policy: Policy, params: np.ndarray, examples: tasks.Examples) -> jax.Array:
    """Return a network's logits for all examples: float32 [n, classes]."""
    network = policy.bind(jnp.asarray(params), ())
    inputs = jnp.asarray(examples.inputs.reshape(examples.size, -1))
    return jax.jit(jax.vmap(lambda x: policy.apply(network, x)))(inputs)


def one_split(split: int, shorter: int) -> dict[str, Any]:
    """Return accuracies by stage, in percent, and sizes in bytes."""
    parts = tasks.digits_splits(split)
    task = tasks.digits(split, batch_size=BATCH)
    policy = policies.flax_convolutional(task.obs_size, task.action_size)
    exam = task.report
    assert exam is not None

    def accuracy(policy: Policy, params: np.ndarray, genotype: Genotype = ()) -> float:
        seen = exam.evaluate(policy.bind(jnp.asarray(params), genotype), policy.apply)
        return 100.0 * float(np.mean(seen.statistics["test_accuracy"]))

    def key(stage: int) -> jax.Array:
        return jax.random.fold_in(jax.random.key(split), stage)

    steps, longer = TRAIN // shorter, RETRAIN // shorter
    first = np.asarray(policy.init(key(0)))
    whole = by_gradient(policy, task, steps, first, key(1))
    taught = tasks.supervised(
        parts.train,
        task.action_size,
        batch_size=BATCH,
        validation=parts.validation,
        test=parts.test,
        teacher=answers(policy, whole, parts.train),
        temperature=TEMPERATURE,
    )
    pruned = policies.prune(policy, whole, round(SHARE * policy.max_edges))
    by_labels = by_gradient(pruned.policy, task, longer, pruned.params, key(2))
    retrained = by_gradient(pruned.policy, taught, longer, pruned.params, key(2))
    shared = policies.quantize(policy, pruned, retrained, BITS)
    colours = shared.genotype
    further = by_gradient(shared.policy, taught, steps, shared.params, key(3), colours)
    found = {
        "unpruned": accuracy(policy, whole),
        "pruned": accuracy(pruned.policy, pruned.params),
        "pruned, retrained by labels": accuracy(pruned.policy, by_labels),
        "pruned, retrained": accuracy(pruned.policy, retrained),
        "shared": accuracy(shared.policy, shared.params, colours),
        "shared, by gradient": accuracy(shared.policy, further, colours),
    }
    train = functools.partial(by_ars, generations=GENERATIONS // shorter, key=key(4))
    only = policy.space.sample(jax.random.key(0))
    for noise in NOISE:
        ready = train(policy, only, whole, task, noise)
        found[f"whole, ARS, {noise} noise"] = accuracy(policy, ready)
        ready = train(pruned.policy, only, retrained, taught, noise)
        found[f"pruned, ARS, {noise} noise"] = accuracy(pruned.policy, ready)
        ready = train(shared.policy, shared.genotype, shared.params, taught, noise)
        found[f"shared, ARS, {noise} noise"] = accuracy(shared.policy, ready, shared.genotype)
        # What is deployed is what was written.
        data = _written_and_read(policies.encode(policy, shared, ready))
        again = accuracy(policy, policies.decode(policy, data))
        if again != found[f"shared, ARS, {noise} noise"]:
            raise AssertionError(f"split {split} reads {again} % from its file")
        found[f"bytes, {noise} noise"] = len(data)
    return found | {"bytes of float32": 4 * policy.num_params}


def _written_and_read(data: bytes) -> bytes:
    path = FOLDER / "network.esq"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path.read_bytes()


FOLDER = Path("runs") / "compression"


def measured(split: int, shorter: int) -> dict[str, Any]:
    """Return what a split comes to, or came to."""
    settings = {
        "share": SHARE,
        "bits": BITS,
        "steps": TRAIN,
        "retraining": RETRAIN,
        "batch": BATCH,
        "rate": RATE,
        "temperature": TEMPERATURE,
        "ars": GENERATIONS,
        "noise": {name: list(numbers) for name, numbers in NOISE.items()},
    }
    measure = functools.partial(one_split, split, shorter)
    found = measure() if shorter > 1 else remembered(FOLDER / f"{split}.json", settings, measure)
    print(f"split {split}: " + ", ".join(f"{k} {v:.4g}" for k, v in found.items()), flush=True)
    return found


def rows_of(found: list[dict[str, Any]], judged: bool) -> list[Row]:
    """Return the table."""

    def row(name: str, values: list[float], unit: str, target: float | None = None) -> Row:
        value, interval = bootstrap_mean(values)
        direction = None if target is None else "at_least"
        shown = interval if judged else None
        return Row(name, value, shown, unit, target, direction, whole=target is not None)

    accuracies = [
        row(f"{stage}: accuracy", [f[stage] for f in found], "%") for stage in ("unpruned", *STAGES)
    ]
    losses = [
        row(
            f"{stage}: {LESS}",
            [round(f[stage] - f["unpruned"], 4) for f in found],
            "points",
            AIM if stage.startswith("shared, ARS") else None,
        )
        for stage in STAGES
    ]
    taught = row(
        "pruned, retrained: accuracy less that by labels",
        [f["pruned, retrained"] - f["pruned, retrained by labels"] for f in found],
        "points",
    )
    sizes = [
        row(
            f"shared, ARS, {noise} noise: file",
            [f[f"bytes, {noise} noise"] for f in found],
            "bytes",
        )
        for noise in NOISE
    ]
    whole = Row("unpruned in float32: size", found[0]["bytes of float32"], None, "bytes")
    return [*accuracies, *losses, taught, *sizes, whole]


def main() -> None:
    """Measure, print, write."""
    arguments = command_line(__doc__)
    configure_jax()
    number, shorter = (2, 10) if arguments.quick else (SPLITS, 1)
    found = [measured(split, shorter) for split in range(number)]
    rows = rows_of(found, judged=not arguments.quick)
    report(
        "compression",
        rows,
        arguments.json,
        lambda path: intervals(
            [
                dataclasses.replace(row, name=row.name.removesuffix(f": {LESS}"))
                for row in rows
                if row.name.endswith(LESS) and not row.name.startswith("pruned:")
            ],
            path,
            "A tenth of the weights, in 5 bits: accuracy less that of the unpruned network",
            f"Digits, means and 95 % intervals over {number} splits · {machine()}",
        ),
    )


if __name__ == "__main__":
    main()
