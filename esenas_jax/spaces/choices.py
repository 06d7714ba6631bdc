"""One of n, k of n, and a number from a range."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from esenas_jax import _checks
from esenas_jax.types import Array, Key

# Where num_chosen^2 is at most so many times num_items, a set is drawn item by item: 64 of 736 in a
# seventh of the time that a CPU takes for the largest of 736 uniforms, by which others are drawn.
# On a GPU, where steps one after the other cost more, it was not measured.
_INSERTS = 40
SCALES = ("linear", "log", "rlog")  # of a FloatRange
# Sizes of a float32.
_SMALLEST, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class OneOf:
    """One of `num_categories` options; the genotype is int32 [].

    Args:
        num_categories: at least 1.
    """

    num_categories: int

    def __post_init__(self) -> None:
        _checks.integer("num_categories", self.num_categories, 1)

    def __str__(self) -> str:
        return f"1 of {self.num_categories}"

    @property
    def log_cardinality(self) -> float:
        """Natural logarithm of `num_categories`."""
        return math.log(self.num_categories)

    def decisions(self, genotype: Array, local: bool = False) -> int:
        """The choice is one node."""
        del genotype
        return int(not local or self.num_categories > 1)

    def sample(self, key: Key, shape: tuple[int, ...] = ()) -> Array:
        """Draw int32 `shape` uniformly from [0, num_categories)."""
        return jax.random.randint(key, shape, 0, self.num_categories, jnp.int32)

    def mutate(self, key: Key, genotype: Array, local: bool = False) -> Array:
        """Draw the choice again: with probability 1 / num_categories nothing changes.

        With `local` another one is drawn, where there is one.
        """
        if not local:
            return self.sample(key)
        if not self.decisions(genotype, local):
            return genotype
        return _another(key, genotype, self.num_categories)

    def crossover(self, key: Key, first: Array, second: Array) -> Array:
        """Take either parent's choice with probability 1/2."""
        return jnp.where(jax.random.bernoulli(key), first, second)

    def validate(self, genotype: Array) -> None:
        """Raise ValueError unless `genotype` is one integer in [0, num_categories)."""
        value = _as_integers("a OneOf genotype", genotype, ())
        if not 0 <= value < self.num_categories:
            raise ValueError(f"a choice must be in [0, {self.num_categories - 1}], got {value}.")

    def active(self, genotype: Array) -> np.ndarray:
        """Return True: the choice is always asked."""
        return np.ones(np.shape(genotype), bool)


@dataclasses.dataclass(frozen=True)
class SubsetOf:
    """`num_chosen` of `num_items`: PyGlove's `manyof` and `sublist_of`.

    The genotype is int32 [num_chosen], the chosen items: ascending unless their order matters.

    Args:
        num_items: at least 1.
        num_chosen: at least 1; at most num_items if they are distinct.
        distinct: whether no item is chosen twice.
        ordered: whether the same items in another order are another choice.
    """

    num_items: int
    num_chosen: int
    distinct: bool = True
    ordered: bool = False
    # Whether the set as a whole is a decision node besides its items; see `Conditional` for the one
    # place where PyGlove has none.
    _whole: bool = dataclasses.field(default=True, repr=False)

    def __post_init__(self) -> None:
        _checks.integer("num_items", self.num_items, 1)
        high = self.num_items if self.distinct else None
        _checks.integer("num_chosen", self.num_chosen, 1, high)

    def __str__(self) -> str:
        if self.distinct and self.ordered and self.num_chosen == self.num_items:
            return f"a permutation of {self.num_items}"
        how = f"{' in order' * self.ordered}{' with repetition' * (not self.distinct)}"
        return f"{self.num_chosen} of {self.num_items}{how}"

    @property
    def log_cardinality(self) -> float:
        """Natural logarithm of the number of sets, sequences or multisets."""
        n, k = self.num_items, self.num_chosen
        if not self.distinct:
            return k * math.log(n) if self.ordered else _log_choose(n + k - 1, k)
        return _log_choose(n, k) + (math.lgamma(k + 1) if self.ordered else 0.0)

    def decisions(self, genotype: Array, local: bool = False) -> int:
        """One node an item chosen, and one for the set as a whole (PyGlove's `sublist_of`).

        A set of one item is a single choice, and one node.
        """
        del genotype
        n, k = self.num_items, self.num_chosen
        if local:
            alone = n == 1 or (self.distinct and not self.ordered and n == k)
            return 0 if alone else k
        return k + 1 if k > 1 and self._whole else k

    def sample(self, key: Key, shape: tuple[int, ...] = ()) -> Array:
        """Draw int32 [*shape, num_chosen].

        Every choice has the same probability, except that a set with repetition, in no order, is
        drawn item by item, as PyGlove does.
        """
        n, k = self.num_items, self.num_chosen
        if self.distinct and k * k <= _INSERTS * n:
            left = jnp.broadcast_to(n - jnp.arange(k, dtype=jnp.int32), (*shape, k))
            ranks = jax.random.randint(key, left.shape, 0, left, jnp.int32).reshape(-1, k)
            return jax.vmap(self._one_by_one)(ranks).reshape(left.shape)
        if self.distinct:
            return self._largest(jax.random.uniform(key, (*shape, n), dtype=jnp.float32))
        drawn = jax.random.randint(key, (*shape, self.num_chosen), 0, self.num_items, jnp.int32)
        return drawn if self.ordered else jnp.sort(drawn)

    def mutate(self, key: Key, genotype: Array, local: bool = False) -> Array:
        """Redraw the whole set with probability 1 / (num_chosen + 1), else replace one item.

        The new item is one that was not chosen, or, with repetition, any; a full set of distinct
        items has none, and stays. A set of one item is always redrawn. With `local` one item is
        replaced by another, and in a permutation two change places.
        """
        nodes = self.decisions(genotype, local)
        if not nodes:
            return genotype
        if self.num_chosen == 1 and not local:
            return self.sample(key)
        k_node, *keys = jax.random.split(key, 3)
        node = jax.random.randint(k_node, (), 0, nodes, jnp.int32)
        changed, _ = self.change(keys, genotype, node, local)
        return changed if self.ordered else jnp.sort(changed)

    def change(
        self, keys: Array | list[Key], genotype: Array, node: Array, local: bool
    ) -> tuple[Array, Array]:
        """Change one node.

        Args:
            keys: two.
            genotype: int32 [num_chosen].
            node: which, int32 [] in [0, decisions).
            local: as `mutate` has it.

        Returns:
            The items [num_chosen] before they are sorted, and for each of them the place it had in
            `genotype`, or -1 for one drawn now.
        """
        k_set, k_item = keys
        n, k, places = self.num_items, self.num_chosen, jnp.arange(self.num_chosen, dtype=jnp.int32)
        changed, origin = genotype, places
        if self.distinct and k == n > 1:
            if local:  # a permutation: the item at `node` changes places with another
                other = _another(k_item, node, k)
                origin = jnp.where(
                    places == node, other, jnp.where(places == other, node, places)
                ).astype(jnp.int32)
                changed = genotype[origin]
        else:
            if self.distinct and k > 1:
                r = jax.random.randint(k_item, (), 0, n - k, jnp.int32)
                item = _absent(jnp.sort(genotype) if self.ordered else genotype, r)
            elif local:
                item = _another(k_item, genotype[node], n)
            else:
                item = jax.random.randint(k_item, (), 0, n, jnp.int32)
            changed = jnp.where(places == node, item, genotype)
            origin = jnp.where(places == node, -1, places)
        if self.decisions(genotype, local) > k:
            redrawn = node == k
            changed = jnp.where(redrawn, self.sample(k_set), changed)
            origin = jnp.where(redrawn, -1, origin)
        return changed, origin

    def crossover(self, key: Key, first: Array, second: Array) -> Array:
        """Keep what both chose; fill up at random with what one of them chose.

        Where order matters, places that agree stay. With repetition the others are either parent's;
        of distinct items, half the others stay where the first parent has them, and what is missing
        comes in the order of the second.
        """
        if self.ordered:
            keep = (first == second) | jax.random.bernoulli(key, shape=first.shape)
            if not self.distinct:
                return jnp.where(keep, first, second)
            return self._fill(first, second, keep)
        if self.distinct:
            return self._vote(key, first, second, self.num_items)
        # The second 5 of a multiset is an item of its own.
        again = self.num_chosen
        first, second = (x * again + _occurrence(x) for x in (first, second))
        return self._vote(key, first, second, self.num_items * again) // again

    def validate(self, genotype: Array | np.ndarray) -> None:
        """Raise ValueError unless the items are in range, and distinct and ascending as asked."""
        value = _as_integers("a SubsetOf genotype", genotype, (self.num_chosen,))
        if value.min() < 0 or value.max() >= self.num_items:
            wrong = value[(value < 0) | (value >= self.num_items)][0]
            raise ValueError(f"an item must be in [0, {self.num_items - 1}], got {wrong}.")
        repeats = len(set(value.tolist())) < value.size
        if (self.distinct and repeats) or (not self.ordered and (np.diff(value) < 0).any()):
            wanted = ["distinct"] * self.distinct + ["ascending"] * (not self.ordered)
            raise ValueError(f"items must be {' and '.join(wanted)}, got {value.tolist()}.")

    def active(self, genotype: Array) -> np.ndarray:
        """Return True for every item."""
        return np.ones(np.shape(genotype), bool)

    def _one_by_one(self, ranks: Array) -> Array:
        """Choose the items that have these ranks [k] among those not chosen before them."""

        def choose(chosen: Array, rank: Array) -> tuple[Array, Array]:
            item = _absent(chosen, rank)
            # Between its neighbours; the last place, which is empty, goes.
            return jnp.clip(item, jnp.roll(chosen, 1).at[0].set(-1), chosen), item

        empty = jnp.full(ranks.shape, self.num_items + self.num_chosen, jnp.int32)
        ascending, in_order = jax.lax.scan(choose, empty, ranks)
        return in_order if self.ordered else ascending

    def _fill(self, first: Array, second: Array, keep: Array) -> Array:
        """Put distinct items of `second` [k], those of both first, where `first` is not kept."""
        items = jnp.zeros(self.num_items, jnp.int32)
        wish = items.at[first].set(jnp.where(keep, -1, 1))[second]  # -1 has it, 1 must not lose it
        wanted = jnp.argsort(wish, stable=True, descending=True)
        holes = jnp.sum(~keep, dtype=jnp.int32)
        taken = (
            jnp.zeros(keep.shape, bool)
            .at[wanted]
            .set(jnp.arange(keep.size, dtype=jnp.int32) < holes)
        )
        following = second[jnp.argsort(~taken, stable=True)]
        place = jnp.cumsum(~keep, dtype=jnp.int32) - 1
        return jnp.where(keep, first, following[jnp.maximum(place, 0)])

    def _vote(self, key: Key, first: Array, second: Array, num_items: int) -> Array:
        votes = jnp.zeros(num_items, jnp.float32).at[first].add(1.0).at[second].add(1.0)
        # Two votes beat one vote plus a uniform in [0, 1), and one beats none plus its uniform.
        return self._largest(
            votes
            + jnp.where(votes == 1, jax.random.uniform(key, votes.shape, dtype=jnp.float32), 0)
        )

    def _largest(self, scores: Array) -> Array:
        largest = jax.lax.top_k(scores, self.num_chosen)[1].astype(jnp.int32)
        return largest if self.ordered else jnp.sort(largest)


def permutation(num_items: int) -> SubsetOf:
    """Return the space of all orders of `num_items` items: PyGlove's `permutate`."""
    return SubsetOf(num_items, num_items, ordered=True)


@dataclasses.dataclass(frozen=True)
class FloatRange:
    """A number in [low, high]; the genotype is float32 [].

    Args:
        low: a number that is not beyond the float32; with a logarithmic scale it is positive.
        high: likewise, at least `low`. There must be a float32 between the two, and their
            difference must be one. Numbers below 1.2e-38 in size, which devices take for 0, count
            as none.
        scale: where a share u in [0, 1] of the range lies, as PyGlove's `floatv` has it: "linear",
            low + u (high - low); "log", low (high / low)^u, dense at the low end; "rlog",
            low + high - low (high / low)^(1 - u), dense at the high end. Numbers are drawn
            uniformly over u, and moved along u.

    Raises:
        TypeError, ValueError: in one sentence, if a number or the scale is not allowed.
    """

    low: float
    high: float
    scale: str = "linear"

    def __post_init__(self) -> None:
        _checks.known("scale", self.scale, SCALES)
        _checks.real("low", self.low, -_LARGEST, _LARGEST)
        _checks.real("high", self.high, self.low, _LARGEST)
        low, high = map(float, self.bounds)
        widths = (self.high - self.low, high - low)
        if low > high or not all(w == 0 or _SMALLEST <= w <= _LARGEST for w in widths):
            raise ValueError(
                f"a range must hold a float32 and, unless it is a single number, have a width in "
                f"[{_SMALLEST:g}, {_LARGEST:g}], got [{self.low!r}, {self.high!r}]."
            )
        if self.scale != "linear" and self.bounds[0] <= 0:
            raise ValueError(
                f"low must be positive where the scale is {self.scale}, got {self.low!r}."
            )

    def __str__(self) -> str:
        scale = "" if self.scale == "linear" else f", {self.scale} scale"
        return f"[{self.low:g}, {self.high:g}]{scale}"

    @property
    def bounds(self) -> tuple[np.float32, np.float32]:
        """The smallest and the largest float32 in the range."""
        zero = np.float32(0)  # minus it is none
        return _at_least(self.low), zero - _at_least(-self.high)

    @property
    def log_cardinality(self) -> float:
        """Inf, but for a range of a single number."""
        return 0.0 if self.bounds[0] == self.bounds[1] else math.inf

    def decisions(self, genotype: Array, local: bool = False) -> int:
        """The number is one node."""
        del genotype
        return int(not local or self.bounds[0] < self.bounds[1])

    def sample(self, key: Key, shape: tuple[int, ...] = ()) -> Array:
        """Draw float32 `shape` uniformly over the scale."""
        return self._at(jax.random.uniform(key, shape, dtype=jnp.float32))

    def mutate(self, key: Key, genotype: Array, local: bool = False) -> Array:
        """Draw the number again; with `local` move it along the scale by a normal tenth of it."""
        low, high = self.bounds
        if not local:
            return self.sample(key)
        if low == high:
            return genotype
        moved = self._share(genotype) + 0.1 * jax.random.normal(key, dtype=jnp.float32)
        moved = self._at(jnp.abs(1.0 - jnp.abs(1.0 - moved) % 2.0))  # reflected at both ends
        # In a range of few float32 it may be rounded to where it was.
        return jnp.where(moved != genotype, moved, jnp.where(genotype == low, high, low))

    def crossover(self, key: Key, first: Array, second: Array) -> Array:
        """Take either parent's number with probability 1/2."""
        return jnp.where(jax.random.bernoulli(key), first, second)

    def validate(self, genotype: Array) -> None:
        """Raise ValueError unless `genotype` is one float32 in the range."""
        value = np.asarray(genotype)
        if value.shape != () or value.dtype != np.float32:
            raise ValueError(
                f"a FloatRange genotype must be float32 of shape (), got {value.dtype} of shape "
                f"{value.shape}."
            )
        if not self.low <= float(value) <= self.high:
            raise ValueError(f"a number must be in [{self.low:g}, {self.high:g}], got {value}.")

    def active(self, genotype: Array) -> np.ndarray:
        """Return True: the number is always asked for."""
        return np.ones(np.shape(genotype), bool)

    def _at(self, share: Array) -> Array:
        """Return the number at a share in [0, 1] of the scale."""
        low, high = self.bounds
        match self.scale:
            case "log":
                number = self._exponential(share)
            case "rlog":
                number = low + (high - self._exponential(1.0 - share))
            case _:
                number = low + share * (high - low)
        return jnp.clip(number, low, high)

    def _share(self, number: Array) -> Array:
        """Return the share of the scale that a number of the range lies at; `_at` inverted."""
        low, high = self.bounds
        match self.scale:
            case "log":
                return self._logarithm(number)
            case "rlog":
                return 1.0 - self._logarithm(low + (high - number))
        return (number - low) / (high - low)

    def _exponential(self, share: Array) -> Array:
        """Return low (high / low)^share."""
        low, high = map(float, self.bounds)
        return jnp.exp(math.log(low) + share * (math.log(high) - math.log(low)))

    def _logarithm(self, number: Array) -> Array:
        """Return the share that `_exponential` maps to a number."""
        low, high = map(float, self.bounds)
        return (jnp.log(number) - math.log(low)) / (math.log(high) - math.log(low))


def _at_least(value: float) -> np.float32:
    """Return the smallest float32 from `value` on that is not subnormal: XLA takes those for 0."""
    if abs(value) < _SMALLEST:
        return np.float32(_SMALLEST if value > 0 else 0.0)
    nearest = np.float32(value)
    return np.nextafter(nearest, np.float32(np.inf)) if float(nearest) < value else nearest


def _another(key: Key, value: Array, number: int) -> Array:
    """Draw uniformly from [0, number) without `value`."""
    drawn = jax.random.randint(key, (), 0, number - 1, jnp.int32)
    return drawn + (drawn >= value).astype(jnp.int32)


def _absent(ascending: Array, rank: Array) -> Array:
    """Return the item that has a rank among those absent from an ascending list [k].

    It is the rank plus the number of entries that have at most as many absent items before them. An
    empty place holds a number beyond all items and places together.
    """
    absent_before = ascending - jnp.arange(ascending.size, dtype=jnp.int32)
    return rank + jnp.sum(absent_before <= rank, dtype=jnp.int32)


def _occurrence(values: Array) -> Array:
    """Return for each of ascending values [k] how many equal ones come before it."""
    return jnp.arange(values.size, dtype=jnp.int32) - jnp.searchsorted(values, values).astype(
        jnp.int32
    )


def _log_choose(n: int, k: int) -> float:
    return max(0.0, math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1))


def _as_integers(name: str, value: Array | np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(value)
    if array.shape != shape or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"{name} must be integers of shape {shape}, got {array.dtype} of shape {array.shape}."
        )
    return array
