"""Options that carry choices of their own."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from esenas_jax.spaces.choices import OneOf, SubsetOf
from esenas_jax.spaces.compositions import Product, Repeat
from esenas_jax.spaces.space import Space
from esenas_jax.types import Array, Genotype, Key


class Chosen(NamedTuple):
    """A genotype of a `Conditional`."""

    index: Array  # int32 [], or [k]: which option, as the genotype of the choice alone
    inner: tuple[Genotype, ...]  # per option its own choices, () if it has none; [k, ...] likewise


@dataclasses.dataclass(frozen=True, init=False)
class Conditional:
    """A choice among options, some of which are spaces themselves.

    Shapes are fixed: there is room for the choices of all options, and those of options that were
    not chosen are 0. Where k options are chosen, each of the k has choices of its own.

    Args:
        options: a space for each option, or None for one with nothing further to choose.
        choice: `OneOf` or `SubsetOf` as many as there are options; one of them by default.

    Raises:
        TypeError: if an option is neither a space nor None, or the choice is another space.
        ValueError: if the choice is among another number of options.

    Example:
        >>> pooling = Conditional([None, OneOf(3)])  # none, or one of three widths
        >>> print(pooling)
        1 of 2 (1: 1 of 3)
    """

    choice: OneOf | SubsetOf
    options: tuple[Space | None, ...]

    def __init__(
        self, options: Sequence[Space | None], choice: OneOf | SubsetOf | None = None
    ) -> None:
        options = tuple(options)
        choice = OneOf(len(options)) if choice is None else choice
        if not isinstance(choice, OneOf | SubsetOf):
            raise TypeError(
                f"the choice of a Conditional must be OneOf or SubsetOf, got {choice!r}."
            )
        for option in options:
            if option is not None and not isinstance(option, Space):
                raise TypeError(f"an option must be a space or None, got {option!r}.")
        if _as_subset(choice).num_items != len(options):
            raise ValueError(f"the choice must be among the {len(options)} options, got {choice}.")
        object.__setattr__(self, "choice", choice)
        object.__setattr__(self, "options", tuple(o and _as_option(o) for o in options))

    def __str__(self) -> str:
        own = ", ".join(f"{j}: {o}" for j, o in enumerate(self.options) if o is not None)
        return f"{self.choice} ({own})" if own else str(self.choice)

    @property
    def log_cardinality(self) -> float:
        """Natural logarithm of the number of ways to choose options and what they carry."""
        each = np.array([0.0 if o is None else o.log_cardinality for o in self.options])
        choice = _as_subset(self.choice)
        if np.isinf(each).any():
            return float("inf")
        k = choice.num_chosen
        if choice.ordered and not choice.distinct:
            return float(k * np.logaddexp.reduce(each))
        # log of the elementary (distinct) or complete symmetric polynomials of the options' sizes
        ways = np.full(k + 1, -np.inf)
        ways[0] = 0.0
        for size in each:
            if choice.distinct:
                ways[1:] = np.logaddexp(ways[1:], ways[:-1] + size)
            else:
                for j in range(1, k + 1):
                    ways[j] = np.logaddexp(ways[j], ways[j - 1] + size)
        orders = SubsetOf(k, k, ordered=True).log_cardinality if choice.ordered else 0.0
        return float(ways[k] + orders)

    def decisions(self, genotype: Chosen, local: bool = False) -> int | Array:
        """Count the nodes of the choice, and those of what was chosen."""
        own = self.choice.decisions(genotype.index, local)
        counts = self._counts(*self._places(genotype), local)
        return (
            own + jnp.sum(counts, dtype=jnp.int32)
            if any(o is not None for o in self.options)
            else own
        )

    def sample(self, key: Key, shape: tuple[int, ...] = ()) -> Chosen:
        """Draw the choice uniformly, and then what it carries."""
        k_index, k_inner = jax.random.split(key)
        index = self.choice.sample(k_index, shape)
        return Chosen(index, self._carried(k_inner, index))

    def mutate(self, key: Key, genotype: Chosen, local: bool = False) -> Chosen:
        """Mutate the choice, or something that was chosen carries; what is new is drawn.

        Nodes are those of the choice and of the options chosen, all with the same probability.
        """
        k_node, k_set, k_item, k_fresh, k_inner = jax.random.split(key, 5)
        choice = _as_subset(self.choice)
        index, inner = self._places(genotype)
        own = self.choice.decisions(genotype.index, local)
        counts = self._counts(index, inner, local)
        node = jax.random.randint(k_node, (), 0, own + jnp.sum(counts, dtype=jnp.int32), jnp.int32)

        # The choice itself. A node past its own changes nothing here.
        changed, origin = choice.change([k_set, k_item], index, jnp.minimum(node, own), local)
        if not choice.ordered:
            order = jnp.argsort(changed, stable=True)
            changed, origin = changed[order], origin[order]
        fresh = self._carried(k_fresh, changed)
        moved = jax.tree.map(
            lambda x, new: jnp.where(_like(origin < 0, x), new, x[jnp.maximum(origin, 0)]),
            inner,
            fresh,
        )

        # What one place carries. Of all options the one that is chosen there counts.
        place = jnp.searchsorted(jnp.cumsum(counts), node - own, side="right")
        mutants = []
        for j, (option, mine) in enumerate(zip(self.options, inner, strict=True)):
            if option is None:
                mutants.append(())
                continue
            one = jax.tree.map(lambda x: x[place], mine)
            mutant = option.mutate(jax.random.fold_in(k_inner, j), one, local)
            here = (jnp.arange(index.size, dtype=jnp.int32) == place) & (index == j)
            mutants.append(
                jax.tree.map(lambda x, new, at=here: jnp.where(_like(at, x), new, x), mine, mutant)
            )
        mutated = jax.tree.map(
            lambda a, b: jnp.where(node < own, a, b),
            (changed, moved),
            (index, tuple(mutants)),
        )
        return self._chosen(*mutated)

    def crossover(self, key: Key, first: Chosen, second: Chosen) -> Chosen:
        """Cross the choices; options that both chose are crossed, others come as they are."""
        k_index, k_inner = jax.random.split(key)
        index = self.choice.crossover(k_index, first.index, second.index)
        (mine, _), (a, inner_a), (b, inner_b) = (
            self._places(x) for x in (Chosen(index, first.inner), first, second)
        )
        in_order = _as_subset(self.choice).ordered and not _as_subset(self.choice).distinct
        (from_a, has_a), (from_b, has_b) = (_places_of(mine, x, in_order) for x in (a, b))
        keys = jax.random.split(k_inner, (len(self.options), mine.size))
        inner = []
        for j, (option, x, y) in enumerate(zip(self.options, inner_a, inner_b, strict=True)):
            if option is None:
                inner.append(())
                continue
            from_first = jax.tree.map(lambda z: z[from_a], x)
            from_second = jax.tree.map(lambda z: z[from_b], y)
            crossed = jax.vmap(option.crossover)(keys[j], from_first, from_second)

            def pick(both: Array, a: Array, b: Array, chosen: Array = mine == j) -> Array:
                one = jnp.where(_like(has_a, a), a, b)
                some = jnp.where(_like(has_a & has_b, a), both, one)
                return jnp.where(_like(chosen, a), some, jnp.zeros_like(a))

            inner.append(jax.tree.map(pick, crossed, from_first, from_second))
        return self._chosen(mine, tuple(inner))

    def validate(self, genotype: Chosen) -> None:
        """Raise ValueError that names the option that is wrong, or the entry that should be 0."""
        if not isinstance(genotype, Chosen) or len(genotype.inner) != len(self.options):
            raise ValueError(
                f"a Conditional genotype must be Chosen(index, inner) with {len(self.options)} "
                f"entries of inner, got {genotype!r}."
            )
        self.choice.validate(genotype.index)
        genotype = jax.tree.map(np.asarray, genotype)
        for j, (mine, wanted) in enumerate(zip(genotype.inner, _example(self).inner, strict=True)):
            if (got := _outline(mine)) != (must := _outline(wanted)):
                raise ValueError(f"option {j}: what it carries must be {must}, got {got}.")
        asked, single = self.active(genotype).inner, isinstance(self.choice, OneOf)
        for j, (option, mine) in enumerate(zip(self.options, genotype.inner, strict=True)):
            if option is None:
                continue
            for place in np.flatnonzero(genotype.index == j):
                try:
                    option.validate(jax.tree.map(lambda x, i=place: x if single else x[i], mine))
                except ValueError as error:
                    raise ValueError(f"option {j}: {error}") from None
            unasked = jax.tree.map(lambda x, on: np.any(x[~on]), mine, asked[j])
            if any(jax.tree.leaves(unasked)):
                raise ValueError(f"option {j}: what it carries must be 0 where it is not chosen.")

    def active(self, genotype: Chosen) -> Chosen:
        """Return True for the choice, and for what is active in options where they are chosen."""
        inner = [
            ()
            if option is None
            else jax.tree.map(
                lambda on, j=j: _like(genotype.index == j, on) & on, option.active(mine)
            )
            for j, (option, mine) in enumerate(zip(self.options, genotype.inner, strict=True))
        ]
        index: Any = self.choice.active(genotype.index)
        return Chosen(index, tuple(inner))

    def _places(self, genotype: Chosen) -> tuple[Array, tuple[Genotype, ...]]:
        """Return index [k] and inner [k, ...]; of one option, k is 1."""
        if isinstance(self.choice, OneOf):
            return jax.tree.map(lambda x: x[None], (genotype.index, genotype.inner))
        return genotype.index, genotype.inner

    def _chosen(self, index: Array, inner: tuple[Genotype, ...]) -> Chosen:
        if isinstance(self.choice, OneOf):
            index, inner = jax.tree.map(lambda x: x[0], (index, inner))
        return Chosen(index, inner)

    def _counts(self, index: Array, inner: tuple[Genotype, ...], local: bool) -> Array:
        """Count the nodes in what each place carries, int32 [k]."""
        counts = jnp.zeros(index.shape, jnp.int32)
        for j, (option, mine) in enumerate(zip(self.options, inner, strict=True)):
            if option is not None:
                each = jax.vmap(
                    lambda _, x, option=option: jnp.asarray(option.decisions(x, local), jnp.int32)
                )(index, mine)
                counts = counts + jnp.where(index == j, each, 0)
        return counts

    def _carried(self, key: Key, index: Array) -> tuple[Genotype, ...]:
        """Draw what options carry, 0 where they are not chosen."""
        inner = []
        for j, option in enumerate(self.options):
            drawn = () if option is None else option.sample(jax.random.fold_in(key, j), index.shape)
            inner.append(
                jax.tree.map(
                    lambda x, j=j: jnp.where(_like(index == j, x), x, jnp.zeros_like(x)), drawn
                )
            )
        return tuple(inner)


def _as_subset(choice: OneOf | SubsetOf) -> SubsetOf:
    return SubsetOf(choice.num_categories, 1) if isinstance(choice, OneOf) else choice


def _as_option(space: Space) -> Space:
    """Return the space as an option carries it.

    In PyGlove's tree a set that is all that an option carries has no node of its own: its items
    hang on the option's.
    """
    match space:
        case SubsetOf():
            return dataclasses.replace(space, _whole=False)
        case Conditional() if isinstance(space.choice, SubsetOf):
            return Conditional(space.options, dataclasses.replace(space.choice, _whole=False))
        case Product() if len(space.leaves) == 1:
            return Product(space.structure.unflatten([_as_option(space.leaves[0])]))
        case Repeat() if space.times == 1:
            return Repeat(_as_option(space.space), 1)
    return space


def _places_of(values: Array, parent: Array, in_order: bool) -> tuple[Array, Array]:
    """Return where the parent [k] has each of the values [k], and whether it has it at all.

    The second time a value comes, it is the parent's second. `in_order` looks at the same place
    only.
    """
    places = jnp.arange(values.size, dtype=jnp.int32)
    same = values[:, None] == parent[None]
    if in_order:
        return places, values == parent
    earlier = places[None] < places[:, None]
    times = jnp.sum((values[:, None] == values[None]) & earlier, axis=1)
    parents_times = jnp.sum((parent[:, None] == parent[None]) & earlier, axis=1)
    same = same & (times[:, None] == parents_times[None])
    return jnp.argmax(same, axis=1), jnp.any(same, axis=1)


@functools.cache
def _example(space: Conditional) -> Chosen:
    """Return the shapes and dtypes of its genotypes."""
    return jax.eval_shape(space.sample, jax.random.key(0))


def _outline(tree: Genotype) -> str:
    """Return a tree in words, with the dtype and shape of each array; all integers are alike."""
    return str(
        jax.tree.map(
            lambda x: f"{'int32' if np.issubdtype(x.dtype, np.integer) else x.dtype}{[*x.shape]}",
            tree,
        )
    )


def _like(flag: Array, x: Array) -> Array:
    """Give a flag [...] the rank of an array [..., more]."""
    return flag.reshape(flag.shape + (1,) * (x.ndim - flag.ndim))
