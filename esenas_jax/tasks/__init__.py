"""Tasks: the world.

Reading order: normalizer, environment, task, regression, supervised, digits, classic_control, brax.
"""

from esenas_jax.tasks.brax import BACKENDS, brax_environment, brax_environments
from esenas_jax.tasks.classic_control import mountain_car, pendulum
from esenas_jax.tasks.digits import digits, digits_splits
from esenas_jax.tasks.environment import Environment, Transition
from esenas_jax.tasks.normalizer import (
    Normalizer,
    ars_normalizer,
    es_normalizer,
    identity_normalizer,
)
from esenas_jax.tasks.regression import finite, polynomial_regression, single_score
from esenas_jax.tasks.supervised import Examples, Splits, stratified_splits, supervised
from esenas_jax.tasks.task import Episodes, Exam, SingleShot, Task, episodes

__all__ = [
    "BACKENDS",
    "Environment",
    "Episodes",
    "Exam",
    "Examples",
    "Normalizer",
    "SingleShot",
    "Splits",
    "Task",
    "Transition",
    "ars_normalizer",
    "brax_environment",
    "brax_environments",
    "digits",
    "digits_splits",
    "episodes",
    "es_normalizer",
    "finite",
    "identity_normalizer",
    "mountain_car",
    "pendulum",
    "polynomial_regression",
    "single_score",
    "stratified_splits",
    "supervised",
]
