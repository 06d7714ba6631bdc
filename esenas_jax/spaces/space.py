"""What every search space offers."""

import functools
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from esenas_jax.types import Array, Genotype, Key


@runtime_checkable
class Space(Protocol):
    """A frozen, hashable description of a set of architectures.

    A genotype is a pytree of int32 and float32 arrays of fixed shapes. What it holds for choices
    that were not asked (see `Conditional`) is 0, so that equal architectures are equal arrays.
    `str` of a space is a short description of it, for people.
    """

    @property
    def log_cardinality(self) -> float:
        """Natural logarithm of the number of architectures; inf where there is a float."""
        ...

    def decisions(self, genotype: Genotype, local: bool = False) -> int | Array:
        """Count the decision nodes of a genotype that `mutate` chooses among.

        An int where all genotypes have as many, an int32 [] where it depends on choices made.
        """
        ...

    def sample(self, key: Key, shape: tuple[int, ...] = ()) -> Genotype:
        """Draw every choice uniformly; `shape` is put before the shape of every array.

        All architectures have the same probability, except where PyGlove's random generator does
        not give them that either: options with many choices of their own are no more likely than
        others, and a set with repetition is drawn item by item.
        """
        ...

    def mutate(self, key: Key, genotype: Genotype, local: bool = False) -> Genotype:
        """Change one decision node of one genotype, drawn uniformly over its `decisions`.

        By default the node is redrawn, with all that hangs on it, as PyGlove's `Uniform` mutator
        does (PyGlove 0.4.5, `pyglove.ext.evolution.mutators`): it may come out as it was. With
        `local` a single value changes, and always does: the result is another genotype wherever
        the space has another one.
        """
        ...

    def crossover(self, key: Key, first: Genotype, second: Genotype) -> Genotype:
        """Mix two genotypes; what they agree on is kept."""
        ...

    def active(self, genotype: Genotype) -> Genotype:
        """Return a genotype's tree of bools, False where a `Conditional` did not ask.

        All arrays may have the same leading axes before their own; NumPy's give NumPy's.
        """
        ...

    def validate(self, genotype: Genotype) -> None:
        """Raise ValueError that names what is wrong, on the host, if this is no genotype of it."""
        ...


def same(first: Genotype, second: Genotype) -> Array:
    """Return whether two genotypes are one architecture, bool []."""
    equal = jax.tree.map(lambda x, y: jnp.all(x == y), first, second)
    return functools.reduce(jnp.logical_and, jax.tree.leaves(equal), jnp.ones((), bool))
