"""What every distribution over a space offers, and how a draw becomes a genotype."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from esenas_jax.spaces import Chosen, Conditional, Product, Repeat, Space, SubsetOf
from esenas_jax.types import Array, Genotype, Key, PyTree


class Distribution(NamedTuple):
    """A distribution over the architectures of a space, with parameters that can be learnt.

    A *draw* is a genotype whose sets are in the order in which they were drawn. Only of a draw is
    the probability known without a sum over orders; `as_genotype` forgets the order.
    """

    init: Callable[[Key], PyTree]  # -> parameters
    # key, parameters -> draw, and its `log_probs`
    sample: Callable[[Key, PyTree], tuple[Genotype, Array]]
    # parameters, draw -> float32 [T], the logarithm of the probability of every decision given
    # those before it, 0 for one that was not asked: their sum is that of the draw
    log_probs: Callable[[PyTree, Genotype], Array]
    mode: Callable[[PyTree], Genotype]  # the draw whose every decision is the likeliest
    learning_rate: float  # of Adam, that suits the parameters with a step a generation


# What can be made of a space: a distribution with parameters.
Parameterisation = Callable[[Space], Distribution]


def as_genotype(space: Space, draw: Genotype) -> Genotype:
    """Return the genotype of a draw: unordered sets ascend, with what their items carry."""
    match space:
        case SubsetOf(ordered=False):
            return jnp.sort(draw)
        case Repeat():
            return jax.vmap(lambda one: as_genotype(space.space, one))(draw)
        case Product():
            parts = zip(space.leaves, space.structure.flatten_up_to(draw), strict=True)
            return space.structure.unflatten([as_genotype(part, x) for part, x in parts])
        case Conditional():
            inner = []
            for option, mine in zip(space.options, draw.inner, strict=True):
                if option is None:
                    inner.append(())
                    continue
                one = functools.partial(as_genotype, option)
                inner.append((jax.vmap(one) if isinstance(space.choice, SubsetOf) else one)(mine))
            if isinstance(space.choice, SubsetOf) and not space.choice.ordered:
                order = jnp.argsort(draw.index, stable=True)
                return jax.tree.map(lambda x: x[order], Chosen(draw.index, tuple(inner)))
            return Chosen(draw.index, tuple(inner))
    return draw


def refusal(space: Space, what: str) -> ValueError:
    """Return the error of a space that a controller cannot handle; it names those that can."""
    return ValueError(
        f"{what} can handle choices among options only, got {space}: random, hill_climbing, "
        "regularized_evolution and nsga2 handle every space."
    )
