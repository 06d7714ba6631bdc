"""A distribution whose every decision depends on those before it: an LSTM that points at options.

As ENAS (arXiv 1802.03268) and pointer networks (arXiv 1506.03134) have it; the controller of
arXiv 1907.06511 is described so, and was not released.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.controllers.distribution import Distribution, Parameterisation, refusal
from esenas_jax.controllers.factorised import NEGLIGIBLE
from esenas_jax.spaces import Chosen, Conditional, OneOf, Product, Repeat, Space, SubsetOf
from esenas_jax.types import Array, Genotype, Key, PyTree

MOST_GROUPS = 64  # steps that a repeated choice takes, by default


class Memory(NamedTuple):
    """What has been decided so far, as the network has it."""

    carry: PyTree  # of the LSTM
    last: Array  # float32 [units], the embedding of the latest decision


# How to decide: key (None if none is needed), logits [..., n], what was drawn (None if nothing) ->
# the option, int32 [...].
Pick = Callable[[Key | None, Array, Array | None], Array]


class How(NamedTuple):
    """How decisions are made."""

    pick: Pick
    step: Callable[[Memory, Array], tuple[Memory, Array]]  # memory, question -> memory, state


Decided = tuple[Memory, Genotype, Array]  # the memory then, the draw, log-probabilities [T]


class Part(NamedTuple):
    """The decisions of one space, one after the other."""

    init: Callable[[Key], PyTree]  # -> parameters
    # how, parameters, memory, key (None if nothing is drawn), draw (None if none is given)
    run: Callable[[How, PyTree, Memory, Key | None, Genotype], Decided]


def autoregressive(units: int = 64, groups: Sequence[int] | None = None) -> Parameterisation:
    """Return the parameterisation by an LSTM; its first draws are nearly uniform.

    A step of the LSTM sees the embedding of the latest decision and one of the question asked, and
    its state gives the logits: of a choice by a linear layer; of a set by the products of its
    query with an embedding of every item, those drawn already left out. A choice that is repeated
    (a colour for every edge) is decided in groups: the decisions of a group depend on those of the
    groups before, and not on each other. Choices of options that were not chosen are not asked:
    the memory passes them by.

    Args:
        units: of the LSTM and of all embeddings, at least 1.
        groups: how many decisions each group has, for the repeated choices that are as many in
            all; of others there are at most 64 groups of equal size. `experiments.build` gives the
            edges that leave a node. A set takes a step an item, and what is repeated besides single
            choices takes its steps every time.

    Raises:
        ValueError: if a number is below 1; when called, if no repeated choice of the space is as
            many as the groups, or the space has numbers from a range.
    """
    units = _checks.integer("units", units, 1)
    sizes = tuple(_checks.integer("groups", size, 1) for size in groups or ())
    from flax import linen as nn  # here, because it takes its time

    # Flax's own, orthogonal matrices take decompositions, and on a CPU of few cores batches of them
    # (many seeds in one program) can wait for each other for ever: seen with jaxlib 0.10.2.
    cell = nn.OptimizedLSTMCell(units, recurrent_kernel_init=nn.initializers.lecun_normal())

    def distribution(space: Space) -> Distribution:
        if sizes and sum(sizes) not in (times := sorted(_times(space))):
            raise ValueError(
                f"groups must have as many decisions as a repeated choice, {times}, got "
                f"{sum(sizes)}."
            )
        part = _part(space, units, sizes)

        def init(key: Key) -> PyTree:
            k_cell, k_part = jax.random.split(key)
            empty = jnp.zeros(units, jnp.float32)
            carry = cell.initialize_carry(k_cell, (units,))
            return cell.init(k_cell, carry, empty), part.init(k_part)

        def run(
            params: PyTree, pick: Pick, key: Key | None, draw: Genotype
        ) -> tuple[Genotype, Array]:
            def step(memory: Memory, question: Array) -> tuple[Memory, Array]:
                made: Any = cell.apply(params[0], memory.carry, memory.last + question)
                carry, seen = made
                return Memory(carry, memory.last), seen

            empty = jnp.zeros(units, jnp.float32)
            memory = Memory((empty, empty), empty)
            return part.run(How(pick, step), params[1], memory, key, draw)[1:]

        return Distribution(
            init=init,
            sample=lambda key, params: run(params, _drawn, key, None),
            log_probs=lambda params, draw: run(params, _given, None, draw)[1],
            mode=lambda params: run(params, _likeliest, None, None)[0],
            learning_rate=0.01,
        )

    return distribution


def _times(space: Space) -> set[int]:
    """Return how often the choices of a space are repeated."""
    match space:
        case Repeat(space=OneOf(), times=times):
            return {times}
        case Repeat():
            return _times(space.space)
        case Product():
            return set().union(*map(_times, space.leaves))
        case Conditional():
            return set().union(*(_times(option) for option in space.options if option is not None))
    return set()


def _drawn(key: Key | None, logits: Array, given: Array | None) -> Array:
    del given
    assert key is not None
    return jax.random.categorical(key, logits).astype(jnp.int32)


def _given(key: Key | None, logits: Array, given: Array | None) -> Array:
    del key, logits
    assert given is not None
    return given


def _likeliest(key: Key | None, logits: Array, given: Array | None) -> Array:
    del key, given
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def _part(space: Space, units: int, groups: tuple[int, ...]) -> Part:
    match space:
        case OneOf():
            return _choices(space.num_categories, (1,), units, lambda x: x[0], lambda x: x[None])
        case SubsetOf():
            return _subset(space, units)
        case Repeat(space=OneOf(num_categories=n), times=times) if times:
            if sum(groups) != times:
                each = -(-times // MOST_GROUPS)
                groups = tuple(min(each, times - i) for i in range(0, times, each))
            return _choices(n, groups, units, lambda x: x, lambda x: x)
        case Repeat():
            return _repeat(space, units, groups)
        case Product():
            return _product(space, units, groups)
        case Conditional():
            return _conditional(space, units, groups)
    raise refusal(space, "An autoregressive distribution")


def _choices(
    n: int,
    groups: tuple[int, ...],
    units: int,
    as_draw: Callable[[Array], Array],
    as_array: Callable[[Array], Array],
) -> Part:
    """Return the part of independent choices of n, decided group by group."""
    widest, total = max(groups), sum(groups)
    # Where the decisions of every group lie; a place past the last fills a group up.
    starts = [sum(groups[:i]) for i in range(len(groups))]
    places = jnp.array(
        [
            [start + i if i < size else total for i in range(widest)]
            for start, size in zip(starts, groups, strict=True)
        ],
        jnp.int32,
    )

    def init(key: Key) -> dict[str, Array]:
        k_question, k_head, k_embedding = jax.random.split(key, 3)
        return {
            "question": _small(k_question, (len(groups), units)),
            "head": _small(k_head, (units, widest, n), 0.1),
            "bias": jnp.zeros((len(groups), widest, n), jnp.float32),
            "embedding": _small(k_embedding, (widest, n, units)),
        }

    def run(how: How, params: PyTree, memory: Memory, key: Key | None, draw: Genotype) -> Decided:
        def group(memory: Memory, asked: tuple) -> tuple[Memory, tuple[Array, Array]]:
            question, bias, mine, key, given = asked
            memory, seen = how.step(memory, question)
            logits = jnp.einsum("u,ugn->gn", seen, params["head"]) + bias
            option = how.pick(key, logits, given)
            real = mine < total
            log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), option[:, None], 1)[:, 0]
            made = params["embedding"][jnp.arange(widest, dtype=jnp.int32), option]
            last = jnp.sum(jnp.where(real[:, None], made, 0.0), axis=0) / jnp.sqrt(
                jnp.sum(real, dtype=jnp.float32)
            )
            return Memory(memory.carry, last), (option, jnp.where(real, log_prob, 0.0))

        keys = None if key is None else jax.random.split(key, len(groups))
        given = None if draw is None else jnp.append(as_array(draw), 0)[places]
        asked = (params["question"], params["bias"], places, keys, given)
        memory, (option, log_prob) = jax.lax.scan(group, memory, asked)

        def in_order(x: Array) -> Array:
            return jnp.zeros(total + 1, x.dtype).at[places.ravel()].set(x.ravel())[:total]

        return memory, as_draw(in_order(option)), in_order(log_prob)

    return Part(init, run)


def _subset(space: SubsetOf, units: int) -> Part:
    n, k = space.num_items, space.num_chosen

    def init(key: Key) -> dict[str, Array]:
        k_question, k_item, k_embedding = jax.random.split(key, 3)
        return {
            "question": _small(k_question, (k, units)),
            "item": _small(k_item, (n, units), 0.1),
            "bias": jnp.zeros(n, jnp.float32),
            "embedding": _small(k_embedding, (n, units)),
        }

    def run(how: How, params: PyTree, memory: Memory, key: Key | None, draw: Genotype) -> Decided:
        def one(carry: tuple[Memory, Array], asked: tuple) -> tuple:
            memory, left = carry
            question, key, given = asked
            memory, seen = how.step(memory, question)
            logits = jnp.where(left, params["item"] @ seen + params["bias"], NEGLIGIBLE)
            item = how.pick(key, logits, given)
            if space.distinct:
                left = left.at[item].set(False)
            memory = Memory(memory.carry, params["embedding"][item])
            return (memory, left), (item, jax.nn.log_softmax(logits)[item])

        keys = None if key is None else jax.random.split(key, k)
        carry = (memory, jnp.ones(n, bool))
        (memory, _), made = jax.lax.scan(one, carry, (params["question"], keys, draw), length=k)
        return memory, *made

    return Part(init, run)


def _repeat(space: Repeat, units: int, groups: tuple[int, ...]) -> Part:
    one = _part(space.space, units, groups)

    def init(key: Key) -> dict[str, PyTree]:
        k_question, k_one = jax.random.split(key)
        return {"question": _small(k_question, (space.times, units)), "each": one.init(k_one)}

    def run(how: How, params: PyTree, memory: Memory, key: Key | None, draw: Genotype) -> Decided:
        def copy(memory: Memory, asked: tuple) -> tuple[Memory, tuple[Genotype, Array]]:
            question, key, given = asked
            memory = Memory(memory.carry, memory.last + question)
            memory, draw, log_probs = one.run(how, params["each"], memory, key, given)
            return memory, (draw, log_probs)

        keys = None if key is None else jax.random.split(key, space.times)
        asked = (params["question"], keys, draw)
        memory, (drawn, log_probs) = jax.lax.scan(copy, memory, asked, length=space.times)
        return memory, drawn, log_probs.reshape(-1)

    return Part(init, run)


def _product(space: Product, units: int, groups: tuple[int, ...]) -> Part:
    parts = [_part(leaf, units, groups) for leaf in space.leaves]

    def init(key: Key) -> list[PyTree]:
        keys = jax.random.split(key, len(parts))
        return [part.init(k) for part, k in zip(parts, keys, strict=True)]

    def run(how: How, params: PyTree, memory: Memory, key: Key | None, draw: Genotype) -> Decided:
        drawn, found = [], []
        given = [None] * len(parts) if draw is None else space.structure.flatten_up_to(draw)
        for j, (part, mine, x) in enumerate(zip(parts, params, given, strict=True)):
            own = None if key is None else jax.random.fold_in(key, j)
            memory, made, log_probs = part.run(how, mine, memory, own, x)
            drawn.append(made)
            found.append(log_probs)
        return memory, space.structure.unflatten(drawn), jnp.concatenate(found)

    return Part(init, run)


def _conditional(space: Conditional, units: int, groups: tuple[int, ...]) -> Part:
    choice = _part(space.choice, units, ())
    options = {
        j: _part(option, units, groups)
        for j, option in enumerate(space.options)
        if option is not None
    }
    several = isinstance(space.choice, SubsetOf)
    places = space.choice.num_chosen if isinstance(space.choice, SubsetOf) else 1

    def init(key: Key) -> dict[str, PyTree]:
        k_choice, k_question, k_options = jax.random.split(key, 3)
        return {
            "choice": choice.init(k_choice),
            "question": _small(k_question, (len(space.options), units)),
            "options": {
                j: part.init(jax.random.fold_in(k_options, j)) for j, part in options.items()
            },
        }

    def run(how: How, params: PyTree, memory: Memory, key: Key | None, draw: Genotype) -> Decided:
        k_choice, k_inner = (None, None) if key is None else jax.random.split(key)
        index = None if draw is None else draw.index
        memory, index, found = choice.run(how, params["choice"], memory, k_choice, index)

        def place(memory: Memory, asked: tuple) -> tuple[Memory, tuple]:
            chosen, key, given = asked
            drawn: list[Genotype] = [()] * len(space.options)
            log_probs = []
            for j, part in options.items():
                question = params["question"][j]
                before = Memory(memory.carry, memory.last + question)
                after, made, mine = part.run(
                    how,
                    params["options"][j],
                    before,
                    None if key is None else jax.random.fold_in(key, j),
                    None if given is None else given[j],
                )
                here = chosen == j
                memory = jax.tree.map(functools.partial(jnp.where, here), after, memory)
                drawn[j] = jax.tree.map(
                    lambda x, here=here: jnp.where(here, x, jnp.zeros_like(x)), made
                )
                log_probs.append(jnp.where(here, mine, 0.0))
            return memory, (tuple(drawn), jnp.concatenate([jnp.zeros(0, jnp.float32), *log_probs]))

        inner = None if draw is None else draw.inner
        if several:
            keys = None if k_inner is None else jax.random.split(k_inner, places)
            memory, (inner, each) = jax.lax.scan(place, memory, (index, keys, inner))
        else:
            memory, (inner, each) = place(memory, (index, k_inner, inner))
        return memory, Chosen(index, inner), jnp.concatenate([found, each.reshape(-1)])

    return Part(init, run)


def _small(key: Key, shape: tuple[int, ...], scale: float = 1.0) -> Array:
    """Draw vectors on the last axis whose length is about `scale`."""
    return scale * jax.random.normal(key, shape, jnp.float32) / jnp.sqrt(jnp.float32(shape[-1]))
