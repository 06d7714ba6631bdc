"""Real handwritten digits: the 1,797 images of 8x8 pixels that come with scikit-learn."""

import numpy as np

from esenas_jax import _checks
from esenas_jax.tasks.supervised import Splits, stratified_splits, supervised
from esenas_jax.tasks.task import SingleShot

CLASSES = 10
LARGEST = 16  # a pixel counts the dots of a 4x4 block that are inked


def digits_splits(split_seed: int) -> Splits:
    """Return the digits (Alpaydin and Kaynak 1998, UCI), split.

    70 % of each class train, 10 % are for validation and 20 % for the test.

    Args:
        split_seed: of the split, at least 0.

    Returns:
        Inputs float32 [n, 8, 8, 1] in [0, 1], labels in [0, 9]; every class has its share of each
        part.

    Raises:
        TypeError, ValueError: if the seed is none.
        ModuleNotFoundError: without scikit-learn.
    """
    split_seed = _checks.integer("split_seed", split_seed, 0)
    try:
        from sklearn.datasets import load_digits  # here, because it takes its time
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the digits come with scikit-learn, which is not installed: pip install "
            "'esenas-jax[digits]'."
        ) from error
    images, labels = load_digits(return_X_y=True)
    inputs = np.asarray(images, np.float32).reshape(-1, 8, 8, 1) / LARGEST
    return stratified_splits(inputs, labels, split_seed)


def digits(split_seed: int = 0, *, batch_size: int = 256) -> SingleShot:
    """Return the task of reading handwritten digits, see `supervised` and `digits_splits`.

    Args:
        split_seed: of the split, at least 0.
        batch_size: images an evaluation.

    Raises:
        TypeError, ValueError: if a number is outside its range.
        ModuleNotFoundError: without scikit-learn.
    """
    splits = digits_splits(split_seed)
    return supervised(
        splits.train,
        CLASSES,
        batch_size=batch_size,
        validation=splits.validation,
        test=splits.test,
    )
