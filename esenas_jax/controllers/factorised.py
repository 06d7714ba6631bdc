"""A distribution whose decisions do not depend on each other: logits for each of them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from esenas_jax.controllers.distribution import Distribution, refusal
from esenas_jax.spaces import Chosen, Conditional, OneOf, Product, Repeat, Space, SubsetOf
from esenas_jax.types import Array, Genotype, Key, PyTree

LEARNING_RATE = 0.2
NEGLIGIBLE = -1e30  # a logit of what cannot be; -inf has no gradient


class Part(NamedTuple):
    """The decisions of one space, as `Distribution` has them."""

    init: Callable[[Key], PyTree]
    sample: Callable[[Key, PyTree], Genotype]
    log_probs: Callable[[PyTree, Genotype], Array]
    mode: Callable[[PyTree], Genotype]


def factorised(space: Space) -> Distribution:
    """Return the distribution that draws every decision by itself, at first uniformly.

    - One of n: a categorical.
    - k of n without repetition: Plackett-Luce (Plackett, 1975): items are drawn one after the
      other in proportion to the exponential of their logits, without those drawn before. Drawn as
      the k largest of logits plus Gumbel noise (Yellott, 1977).
    - k of n with repetition: a categorical for every place where order matters, one for all where
      it does not.
    - What an option carries has one set of logits, whichever place the option is chosen for.

    Raises:
        ValueError: if the space has numbers from a range.
    """
    part = _part(space)

    def sample(key: Key, params: PyTree) -> tuple[Genotype, Array]:
        draw = part.sample(key, params)
        return draw, part.log_probs(params, draw)

    return Distribution(part.init, sample, part.log_probs, part.mode, LEARNING_RATE)


def _part(space: Space) -> Part:
    match space:
        case OneOf():
            return _categorical(space)
        case SubsetOf(distinct=True):
            return _plackett_luce(space)
        case SubsetOf(ordered=True):
            return _repeated(_categorical(OneOf(space.num_items)), space.num_chosen)
        case SubsetOf():
            return _same_for_all(_categorical(OneOf(space.num_items)), space.num_chosen)
        case Repeat():
            return _repeated(_part(space.space), space.times)
        case Product():
            return _product(space)
        case Conditional():
            return _conditional(space)
    raise refusal(space, "A factorised distribution")


def _categorical(space: OneOf) -> Part:
    n = space.num_categories

    def sample(key: Key, logits: Array) -> Array:
        # One uniform number among the sums of probabilities, which all candidates share, instead of
        # noise for every option. It has steps of 2^-23, and so have probabilities. The last sum is
        # 1 but for rounding.
        sums = jnp.cumsum(jax.nn.softmax(logits))
        return jnp.sum(
            jax.random.uniform(key, dtype=jnp.float32) * sums[-1] >= sums[:-1], dtype=jnp.int32
        )

    def log_probs(logits: Array, draw: Array) -> Array:
        return jax.nn.log_softmax(logits)[draw][None]

    return Part(
        init=lambda key: jnp.zeros(n, jnp.float32),
        sample=sample,
        log_probs=log_probs,
        mode=lambda logits: jnp.argmax(logits).astype(jnp.int32),
    )


def _plackett_luce(space: SubsetOf) -> Part:
    n, k = space.num_items, space.num_chosen

    def largest(scores: Array) -> Array:
        return jax.lax.top_k(scores, k)[1].astype(jnp.int32)

    def log_probs(logits: Array, draw: Array) -> Array:
        # Item i is drawn from those drawn from i on and those never drawn; sums from the far end,
        # a step at a time: on a CPU thirty times faster than `jax.lax.cumlogsumexp`.
        drawn = logits[draw]
        never = jnp.ones(n, bool).at[draw].set(False)
        rest = jax.nn.logsumexp(jnp.where(never, logits, NEGLIGIBLE))

        def join(rest: Array, logit: Array) -> tuple[Array, Array]:
            left = jnp.logaddexp(rest, logit)
            return left, left

        return drawn - jax.lax.scan(join, rest, drawn, reverse=True)[1]

    return Part(
        init=lambda key: jnp.zeros(n, jnp.float32),
        sample=lambda key, logits: largest(
            logits + jax.random.gumbel(key, (n,), dtype=jnp.float32)
        ),
        log_probs=log_probs,
        mode=largest,
    )


def _repeated(one: Part, times: int) -> Part:
    def log_probs(params: PyTree, draw: Genotype) -> Array:
        return jax.vmap(one.log_probs)(params, draw).reshape(-1)

    return Part(
        init=lambda key: jax.vmap(one.init)(jax.random.split(key, times)),
        sample=lambda key, params: jax.vmap(one.sample)(jax.random.split(key, times), params),
        log_probs=log_probs,
        mode=jax.vmap(one.mode),
    )


def _same_for_all(one: Part, k: int) -> Part:
    def sample(key: Key, params: PyTree) -> Array:
        return jax.vmap(one.sample, (0, None))(jax.random.split(key, k), params)

    def log_probs(params: PyTree, draw: Array) -> Array:
        return jax.vmap(one.log_probs, (None, 0))(params, draw).reshape(-1)

    return Part(
        init=one.init,
        sample=sample,
        log_probs=log_probs,
        mode=lambda params: jnp.broadcast_to(one.mode(params), (k,)),
    )


def _product(space: Product) -> Part:
    parts, structure = [_part(leaf) for leaf in space.leaves], space.structure

    def init(key: Key) -> list[PyTree]:
        keys = jax.random.split(key, len(parts))
        return [part.init(k) for part, k in zip(parts, keys, strict=True)]

    def sample(key: Key, params: list[PyTree]) -> Genotype:
        keys = jax.random.split(key, len(parts))
        return structure.unflatten(
            [part.sample(k, p) for part, k, p in zip(parts, keys, params, strict=True)]
        )

    def log_probs(params: list[PyTree], draw: Genotype) -> Array:
        drawn = structure.flatten_up_to(draw)
        each = [part.log_probs(p, x) for part, p, x in zip(parts, params, drawn, strict=True)]
        return jnp.concatenate(each)

    def mode(params: list[PyTree]) -> Genotype:
        return structure.unflatten([part.mode(p) for part, p in zip(parts, params, strict=True)])

    return Part(init, sample, log_probs, mode)


def _conditional(space: Conditional) -> Part:
    choice = _part(space.choice)
    options = [None if option is None else _part(option) for option in space.options]
    several = isinstance(space.choice, SubsetOf)
    places = space.choice.num_chosen if isinstance(space.choice, SubsetOf) else 1

    def init(key: Key) -> tuple[PyTree, list[PyTree]]:
        keys = jax.random.split(key, len(options) + 1)
        own = [() if o is None else o.init(k) for o, k in zip(options, keys[1:], strict=True)]
        return choice.init(keys[0]), own

    def carried(index: Array, made: list[PyTree]) -> Chosen:
        """Put 0 where an option was not chosen; of one option there is one copy."""
        inner = []
        for j, copies in enumerate(made):
            kept = jax.tree.map(
                lambda x, j=j: jnp.where(
                    (index == j).reshape(index.shape + (1,) * (x.ndim - 1)), x, jnp.zeros_like(x)
                ),
                copies,
            )
            inner.append(kept if several else jax.tree.map(lambda x: x[0], kept))
        return Chosen(index if several else index[0], tuple(inner))

    def sample(key: Key, params: tuple[PyTree, list[PyTree]]) -> Chosen:
        k_choice, k_inner = jax.random.split(key)
        index = jnp.atleast_1d(choice.sample(k_choice, params[0]))
        keys = jax.random.split(k_inner, (len(options), places))
        made = [
            () if option is None else jax.vmap(option.sample, (0, None))(keys[j], params[1][j])
            for j, option in enumerate(options)
        ]
        return carried(index, made)

    def log_probs(params: tuple[PyTree, list[PyTree]], draw: Chosen) -> Array:
        index = jnp.atleast_1d(draw.index)
        found = [choice.log_probs(params[0], draw.index)]
        for j, option in enumerate(options):
            if option is None:
                continue
            copies = draw.inner[j] if several else jax.tree.map(lambda x: x[None], draw.inner[j])
            each = jax.vmap(option.log_probs, (None, 0))(params[1][j], copies)  # [places, T]
            found.append(jnp.where((index == j)[:, None], each, 0.0).reshape(-1))
        return jnp.concatenate(found)

    def mode(params: tuple[PyTree, list[PyTree]]) -> Chosen:
        index = jnp.atleast_1d(choice.mode(params[0]))
        made = [
            ()
            if option is None
            else jax.tree.map(
                lambda x: jnp.broadcast_to(x, (places, *x.shape)), option.mode(params[1][j])
            )
            for j, option in enumerate(options)
        ]
        return carried(index, made)

    return Part(init, sample, log_probs, mode)


def counted(space: Space, genotype: Genotype) -> PyTree:
    """Count how often a genotype has every option, in the tree of `factorised`'s parameters.

    What an option carries counts where the option is chosen.
    """
    match space:
        case OneOf():
            return jax.nn.one_hot(genotype, space.num_categories, dtype=jnp.float32)
        case SubsetOf(distinct=False, ordered=True):
            return jax.nn.one_hot(genotype, space.num_items, dtype=jnp.float32)
        case SubsetOf():
            return jnp.zeros(space.num_items, jnp.float32).at[genotype].add(1.0)
        case Repeat():
            return jax.vmap(lambda one: counted(space.space, one))(genotype)
        case Product():
            parts = zip(space.leaves, space.structure.flatten_up_to(genotype), strict=True)
            return [counted(part, mine) for part, mine in parts]
        case Conditional():
            index, inner = jnp.atleast_1d(genotype.index), genotype.inner
            if isinstance(space.choice, OneOf):
                inner = jax.tree.map(lambda x: x[None], inner)
            carried = []
            for j, (option, mine) in enumerate(zip(space.options, inner, strict=True)):
                if option is None:
                    carried.append(())
                    continue
                each = jax.vmap(lambda one, option=option: counted(option, one))(mine)
                here = (index == j).astype(jnp.float32)
                carried.append(
                    jax.tree.map(lambda x, here=here: jnp.tensordot(here, x, axes=1), each)
                )
            return counted(space.choice, genotype.index), carried
    raise refusal(space, "A count of options")
