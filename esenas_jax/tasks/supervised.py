"""Classification: examples to train on, others to choose an answer with, others to report it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from esenas_jax import _checks
from esenas_jax.tasks.regression import finite, single_score
from esenas_jax.tasks.task import Apply, Exam, SingleShot
from esenas_jax.types import Array, Evaluation, Key, PyTree


class Examples(NamedTuple):
    """Inputs and the classes they belong to."""

    inputs: np.ndarray  # float32 [n, ...]
    labels: np.ndarray  # int32 [n], in [0, classes)

    @property
    def size(self) -> int:
        """How many there are, n."""
        return self.labels.size


class Splits(NamedTuple):
    """Examples in three parts that have none in common."""

    train: Examples  # mini-batches are drawn from them
    validation: Examples  # an answer is chosen with them
    test: Examples  # and reported on them: they neither train nor select


def stratified_splits(
    inputs: ArrayLike,
    labels: ArrayLike,
    split_seed: int,
    *,
    validation: float = 0.1,
    test: float = 0.2,
) -> Splits:
    """Split examples at random into three parts with equal shares of every class.

    Args:
        inputs: [n, ...].
        labels: integers [n], the classes.
        split_seed: of the split, at least 0; it has nothing to do with the seed of a run.
        validation: share of each class in (0, 1) to choose answers with, rounded, one at least.
        test: share of each class in (0, 1) to report answers on, likewise.

    Raises:
        TypeError, ValueError: if inputs and labels are not as many, a number is outside its range,
            or a class has too few examples for three parts.
    """
    split_seed = _checks.integer("split_seed", split_seed, 0)
    shares = [
        _checks.share(name, share, whole=False)
        for name, share in (("validation", validation), ("test", test))
    ]
    whole = _examples("the examples", inputs, labels)
    rng = np.random.default_rng(split_seed)
    parts: list[list[np.ndarray]] = [[], [], []]
    for label in np.unique(whole.labels):
        places = rng.permutation(np.flatnonzero(whole.labels == label))
        ends = np.cumsum([max(1, round(share * places.size)) for share in shares])
        if ends[-1] >= places.size:
            raise ValueError(
                f"every class must have examples left to train on, got {places.size} of class "
                f"{label} with shares of {validation:g} for validation and {test:g} for test."
            )
        # The first part is what is left of the class.
        for part, some in zip(parts, np.split(places, ends), strict=True):
            part.append(some)
    checked, reported, trained = (np.sort(np.concatenate(part)) for part in parts)
    return Splits(*(Examples(*(x[i] for x in whole)) for i in (trained, checked, reported)))


def supervised(
    train: Examples,
    num_classes: int,
    *,
    batch_size: int,
    validation: Examples | None = None,
    test: Examples | None = None,
    teacher: ArrayLike | None = None,
    temperature: float = 4.0,
) -> SingleShot:
    """Return the task of classifying, scored by minus the cross-entropy on a mini-batch.

    The mini-batch is drawn without replacement from a candidate's key: with `Starts.GENERATION` all
    candidates of a generation see the same one. Outputs are logits.

    With a `teacher` the task is to answer as another network does, labels apart (distillation,
    arXiv 1503.02531, section 2): the score is minus the mean divergence KL(p || q) of the
    probabilities q of a candidate's logits from p of the teacher's, both divided by the
    temperature, times its square, which keeps gradients of one size. Validation and test examples,
    where they are given, go by their labels as ever.

    Args:
        train: inputs [n, ...] and labels [n].
        num_classes: A, at least 2; O is the size of an input.
        batch_size: in [1, n].
        validation: what chooses an answer, all of it; by default mini-batches of `train`.
        test: what says how good the answer is, `test_loss` and `test_accuracy`; by default
            mini-batches of `train`, and the score.
        teacher: logits [n, A] of a trained network for `train`.
        temperature: of a teacher's answers, in [0.01, 100]; the higher it is, the more they say of
            the classes that are not the likeliest. Above, float32 has no digits left for what
            divides by it.

    Raises:
        TypeError, ValueError: in one sentence, if inputs and labels are not as many or not as
            large as those of `train`, a label is outside the classes, an input or a logit is not
            finite, or a number is outside its range.

    Example:
        >>> examples = Examples(np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1], np.int32))
        >>> task = supervised(examples, 2, batch_size=2, test=examples)
        >>> task.obs_size, task.action_size, task.report.size
        (4, 2, 4)
    """
    num_classes = _checks.integer("num_classes", num_classes, 2)
    train = _examples("train", *train, num_classes)
    batch_size = _checks.integer("batch_size", batch_size, 1)
    if batch_size > train.size:
        raise ValueError(
            f"batch_size must be at most the {train.size} examples to train on, got {batch_size}."
        )
    shape = train.inputs.shape[1:]
    temperature = _checks.real("temperature", temperature, 0.01, 100.0)
    taught = None if teacher is None else _taught(teacher, (train.size, num_classes), temperature)

    def exam(name: str, given: Examples | None) -> Exam | None:
        if given is None:
            return None
        examples = _examples(name, *given, num_classes)
        if examples.inputs.shape[1:] != shape:
            raise ValueError(
                f"inputs of {name} must have the shape of those to train on, {shape}, got "
                f"{examples.inputs.shape[1:]}."
            )
        x, y = _on_device(examples)

        def evaluate(network: PyTree, apply: Apply) -> Evaluation:
            loss, right = _each(network, apply, x, y)
            measures = {f"{name}_accuracy": right.astype(jnp.float32), f"{name}_loss": loss}
            return jax.vmap(single_score)(-loss)._replace(statistics=measures)

        return Exam(name, examples.size, evaluate)

    x, y = _on_device(train)

    def evaluate(key: Key, network: PyTree, apply: Apply) -> Evaluation:
        # As random as a permutation, and several times as fast to draw.
        drawn = jax.lax.top_k(jax.random.uniform(key, y.shape, dtype=jnp.float32), batch_size)[1]
        if taught is None:
            loss, _ = _each(network, apply, x[drawn], y[drawn])
        else:
            logits = jax.vmap(apply, in_axes=(None, 0))(network, x[drawn]).astype(jnp.float32)
            answers = jax.nn.log_softmax(logits / temperature)
            apart = optax.losses.kl_divergence_with_log_targets(answers, taught[drawn])
            loss = jnp.where(finite(logits), temperature**2 * apart, jnp.nan)
        return single_score(-jnp.mean(loss))

    return SingleShot(
        obs_size=x.shape[1],
        action_size=num_classes,
        evaluate=evaluate,
        select=exam("validation", validation),
        report=exam("test", test),
    )


def _each(network: PyTree, apply: Apply, x: Array, y: Array) -> tuple[Array, Array]:
    """Return the cross-entropies [n], and which examples are classified right, bool [n].

    Of an example whose logits are not all finite the cross-entropy is NaN, and it is not right.
    """
    logits = jax.vmap(apply, in_axes=(None, 0))(network, x)
    sound = jnp.isfinite(logits).all(axis=-1)
    loss = optax.losses.softmax_cross_entropy_with_integer_labels(logits, y)
    return jnp.where(sound, loss, jnp.nan), (
        jnp.argmax(logits, axis=-1).astype(y.dtype) == y
    ) & sound


def _taught(teacher: ArrayLike, shape: tuple[int, int], temperature: float) -> Array:
    """Return a teacher's logits as log-probabilities; raise ValueError if they are none."""
    with np.errstate(over="ignore"):  # what float32 has no room for is told below
        logits = np.asarray(teacher, np.float32)
    if logits.shape != shape:
        raise ValueError(f"teacher must be logits of the shape {shape}, got {logits.shape}.")
    if not np.isfinite(logits).all():
        raise ValueError(
            f"teacher must be finite in float32, got {logits[~np.isfinite(logits)][0]}."
        )
    return jax.nn.log_softmax(jnp.asarray(logits) / temperature)


def _on_device(examples: Examples) -> tuple[Array, Array]:
    inputs = examples.inputs.reshape(examples.size, -1)
    return jnp.asarray(inputs), jnp.asarray(examples.labels)


def _examples(
    name: str, inputs: ArrayLike, labels: ArrayLike, num_classes: int | None = None
) -> Examples:
    """Return examples as arrays; raise TypeError or ValueError if they are none."""
    x, y = np.asarray(inputs, np.float32), np.asarray(labels)
    if not np.issubdtype(y.dtype, np.integer):
        raise TypeError(f"labels of {name} must be integers, got {y.dtype}.")
    if y.ndim != 1 or not y.size or x.ndim < 2 or len(x) != y.size:
        raise ValueError(
            f"{name} must have inputs [n, ...] and labels [n], got the shapes {x.shape} and "
            f"{y.shape}."
        )
    if not np.isfinite(x).all():
        raise ValueError(f"inputs of {name} must be finite, got {x[~np.isfinite(x)][0]}.")
    wrong = y < 0 if num_classes is None else (y < 0) | (y >= num_classes)
    if wrong.any():
        allowed = "at least 0" if num_classes is None else f"in [0, {num_classes - 1}]"
        raise ValueError(f"labels of {name} must be {allowed}, got {y[wrong][0]}.")
    return Examples(x, y.astype(np.int32))
