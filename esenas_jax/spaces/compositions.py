"""Many choices: the same one repeated, or different ones side by side."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from esenas_jax import _checks
from esenas_jax.spaces.space import Space
from esenas_jax.types import Array, Genotype, Key


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

    def __str__(self) -> str:
        return f"{self.times} x ({self.space})"

    @property
    def log_cardinality(self) -> float:
        """The sum over the copies."""
        return self.times * self.space.log_cardinality if self.times else 0.0

    def decisions(self, genotype: Genotype, local: bool = False) -> int | Array:
        """Count the nodes of all copies."""
        counts = self._counts(genotype, local)
        return counts if isinstance(counts, int) else jnp.sum(counts, dtype=jnp.int32)

    def sample(self, key: Key, shape: tuple[int, ...] = ()) -> Genotype:
        """Draw every copy independently."""
        return self.space.sample(key, (*shape, self.times))

    def mutate(self, key: Key, genotype: Genotype, local: bool = False) -> Genotype:
        """Mutate one copy, drawn in proportion to its number of nodes."""
        counts = self._counts(genotype, local)
        if isinstance(counts, int) and not counts:
            return genotype
        k_copy, k_mutate = jax.random.split(key)
        if isinstance(counts, int):
            i = jax.random.randint(k_copy, (), 0, self.times, jnp.int32)
        else:
            node = jax.random.randint(k_copy, (), 0, jnp.sum(counts, dtype=jnp.int32), jnp.int32)
            i = jnp.searchsorted(jnp.cumsum(counts), node, side="right")
        mutant = self.space.mutate(k_mutate, jax.tree.map(lambda x: x[i], genotype), local)
        # Where no copy can change, i is one past the last, and dropped.
        return jax.tree.map(lambda x, new: x.at[i].set(new, mode="drop"), genotype, mutant)

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

    def active(self, genotype: Genotype) -> Genotype:
        """Say it of every copy."""
        return self.space.active(genotype)

    def _counts(self, genotype: Genotype, local: bool) -> int | Array:
        """Count the nodes of every copy [times], or of all of them where each has as many."""
        if not self.times:
            return 0
        each = self.space.decisions(jax.tree.map(lambda x: x[0], genotype), local)
        if isinstance(each, int):
            return self.times * each
        return jax.vmap(lambda copy: self.space.decisions(copy, local))(genotype)


@dataclasses.dataclass(frozen=True, init=False)
class Product:
    """Several spaces side by side; genotypes have the structure of `spaces`.

    Args:
        spaces: a dict, tuple or list (nested as one likes) whose leaves are spaces. JAX takes the
            entries of a dict in the order of their keys, those of an OrderedDict as they come.

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

    def __str__(self) -> str:
        return (
            "{" + ", ".join(f"{n}: {s}" for n, s in zip(self.names, self.leaves, strict=True)) + "}"
        )

    @property
    def names(self) -> tuple[str, ...]:
        """What each part is called, in the order of `leaves`."""
        paths = jax.tree.leaves_with_path(self.structure.unflatten(self.leaves))
        return tuple(jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths)

    @property
    def log_cardinality(self) -> float:
        """The sum over the parts."""
        return sum(space.log_cardinality for space in self.leaves)

    def decisions(self, genotype: Genotype, local: bool = False) -> int | Array:
        """Count the nodes of all parts."""
        return sum(self._counts(genotype, local))

    def sample(self, key: Key, shape: tuple[int, ...] = ()) -> Genotype:
        """Draw every part independently."""
        keys = jax.random.split(key, len(self.leaves))
        return self.structure.unflatten(
            [space.sample(k, shape) for space, k in zip(self.leaves, keys, strict=True)]
        )

    def mutate(self, key: Key, genotype: Genotype, local: bool = False) -> Genotype:
        """Mutate one part, drawn in proportion to its number of nodes."""
        counts = self._counts(genotype, local)
        total = sum(counts)
        if isinstance(total, int) and not total:
            return genotype
        k_part, k_mutate = jax.random.split(key)
        node = jax.random.randint(k_part, (), 0, total, jnp.int32)
        # Where no part can change, the node lies past all of them.
        ends = jnp.stack([jnp.asarray(end, jnp.int32) for end in itertools.accumulate(counts)])
        part = jnp.searchsorted(ends, node, side="right")
        parts = self.structure.flatten_up_to(genotype)
        return self.structure.unflatten(
            [
                jax.tree.map(
                    lambda old, new, j=j: jnp.where(part == j, new, old),
                    old,
                    space.mutate(jax.random.fold_in(k_mutate, j), old, local),
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
        except (ValueError, TypeError, KeyError):
            # The names of both say what JAX's own message may not: a dict is no OrderedDict.
            raise ValueError(
                f"a Product genotype must have the structure of its spaces, {self.structure}, got "
                f"{jax.tree.structure(genotype)}."
            ) from None
        for name, space, part in zip(self.names, self.leaves, parts, strict=True):
            try:
                space.validate(part)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None

    def active(self, genotype: Genotype) -> Genotype:
        """Say it of every part."""
        parts = zip(self.leaves, self.structure.flatten_up_to(genotype), strict=True)
        return self.structure.unflatten([space.active(part) for space, part in parts])

    def _counts(self, genotype: Genotype, local: bool) -> list[int | Array]:
        parts = zip(self.leaves, self.structure.flatten_up_to(genotype), strict=True)
        return [space.decisions(part, local) for space, part in parts]
