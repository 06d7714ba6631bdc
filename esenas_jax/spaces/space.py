"""What every search space offers."""

from typing import Protocol, runtime_checkable

from esenas_jax.types import Genotype, Key


@runtime_checkable
class Space(Protocol):
    """A frozen, hashable description of a set of architectures.

    A genotype is a pytree of int32 arrays of fixed shapes. `mutate` follows PyGlove's `Uniform`
    mutator: one decision node, drawn uniformly over the `num_decisions` of the whole space, is
    redrawn (PyGlove 0.4.5, `pyglove.ext.evolution.mutators`).
    """

    @property
    def num_decisions(self) -> int:
        """Decision nodes that `mutate` chooses among."""
        ...

    def sample(self, key: Key, shape: tuple[int, ...] = ()) -> Genotype:
        """Draw uniformly; `shape` is put before the shape of every array of the genotype."""
        ...

    def mutate(self, key: Key, genotype: Genotype) -> Genotype:
        """Redraw one decision node of one genotype."""
        ...

    def crossover(self, key: Key, first: Genotype, second: Genotype) -> Genotype:
        """Mix two genotypes; what they agree on is kept."""
        ...

    def validate(self, genotype: Genotype) -> None:
        """Raise ValueError that names what is wrong, on the host, if this is no genotype of it."""
        ...
