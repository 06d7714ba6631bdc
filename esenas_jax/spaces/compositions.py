"""Many choices: the same one repeated, or different ones side by side."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from esenas_jax import _checks
from esenas_jax.spaces.space import Space
from esenas_jax.types import Genotype, Key


@dataclasses.dataclass(frozen=True)
class Repeat:
    """`times` independent copies of `space`, as arrays with a leading axis of that length.

    736 independent choices are one int32 array: `Repeat(OneOf(17), 736)`.

    Args:
        space: what is repeated.
        times: at least 0; none leaves a single architecture, with nothing to choose.
    """

    space: Space
    times: int

    def __post_init__(self) -> None:
        if not isinstance(self.space, Space):
            raise TypeError(f"a Repeat must repeat a space, got {self.space!r}.")
        _checks.integer("times", self.times, 0)

    @property
    def num_decisions(self) -> int:
        """The nodes of all copies."""
        return self.times * self.space.num_decisions

    def sample(self, key: Key, shape: tuple[int, ...] = ()) -> Genotype:
        """Draw every copy independently."""
        return self.space.sample(key, (*shape, self.times))

    def mutate(self, key: Key, genotype: Genotype) -> Genotype:
        """Mutate one copy, drawn uniformly."""
        if not self.times:
            return genotype
        k_copy, k_mutate = jax.random.split(key)
        i = jax.random.randint(k_copy, (), 0, self.times)
        mutant = self.space.mutate(k_mutate, jax.tree.map(lambda x: x[i], genotype))
        return jax.tree.map(lambda x, new: x.at[i].set(new), genotype, mutant)

    def crossover(self, key: Key, first: Genotype, second: Genotype) -> Genotype:
        """Cross every copy with its counterpart."""
        return jax.vmap(self.space.crossover)(jax.random.split(key, self.times), first, second)

    def validate(self, genotype: Genotype) -> None:
        """Raise ValueError that names the copy that is wrong."""
        lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(genotype)}
        if lengths != {(self.times,)}:
            raise ValueError(
                f"a Repeat genotype must have {self.times} copies on its first axis, "
                f"got {sorted(lengths)}."
            )
        for i in range(self.times):
            try:
                self.space.validate(jax.tree.map(lambda x, i=i: x[i], genotype))
            except ValueError as error:
                raise ValueError(f"copy {i}: {error}") from None


@dataclasses.dataclass(frozen=True, init=False)
class Product:
    """Several spaces side by side; genotypes have the structure of `spaces`.

    Args:
        spaces: a dict, tuple or list (nested as one likes) whose leaves are spaces.

    Raises:
        TypeError: if a leaf is not a space, or there is none.
    """

    leaves: tuple[Space, ...]
    structure: Any  # a jax PyTreeDef

    def __init__(self, spaces: Any) -> None:
        leaves, structure = jax.tree.flatten(spaces)
        if not leaves:
            raise TypeError(f"a Product must be made of at least one space, got {spaces!r}.")
        for leaf in leaves:
            if not isinstance(leaf, Space):
                raise TypeError(f"a Product must be made of spaces, got {leaf!r}.")
        object.__setattr__(self, "leaves", tuple(leaves))
        object.__setattr__(self, "structure", structure)

    @property
    def num_decisions(self) -> int:
        """The nodes of all parts."""
        return sum(space.num_decisions for space in self.leaves)

    def sample(self, key: Key, shape: tuple[int, ...] = ()) -> Genotype:
        """Draw every part independently."""
        keys = jax.random.split(key, len(self.leaves))
        return self.structure.unflatten(
            [space.sample(k, shape) for space, k in zip(self.leaves, keys, strict=True)]
        )

    def mutate(self, key: Key, genotype: Genotype) -> Genotype:
        """Mutate one part, drawn in proportion to its number of nodes."""
        k_part, k_mutate = jax.random.split(key)
        node = jax.random.randint(k_part, (), 0, self.num_decisions)
        ends = np.cumsum([space.num_decisions for space in self.leaves])
        part = jnp.searchsorted(jnp.asarray(ends), node, side="right")
        parts = self.structure.flatten_up_to(genotype)
        return self.structure.unflatten(
            [
                jax.tree.map(
                    lambda old, new, j=j: jnp.where(part == j, new, old),
                    old,
                    space.mutate(jax.random.fold_in(k_mutate, j), old),
                )
                for j, (space, old) in enumerate(zip(self.leaves, parts, strict=True))
            ]
        )

    def crossover(self, key: Key, first: Genotype, second: Genotype) -> Genotype:
        """Cross every part with its counterpart."""
        keys = jax.random.split(key, len(self.leaves))
        pairs = zip(
            self.leaves,
            keys,
            self.structure.flatten_up_to(first),
            self.structure.flatten_up_to(second),
            strict=True,
        )
        return self.structure.unflatten([space.crossover(k, a, b) for space, k, a, b in pairs])

    def validate(self, genotype: Genotype) -> None:
        """Raise ValueError that names the part that is wrong."""
        try:
            parts = self.structure.flatten_up_to(genotype)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"a Product genotype must have the structure of its spaces: {error}"
            ) from None
        names = [
            jax.tree_util.keystr(path)
            for path, _ in jax.tree.leaves_with_path(self.structure.unflatten(self.leaves))
        ]
        for name, space, part in zip(names, self.leaves, parts, strict=True):
            try:
                space.validate(part)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
