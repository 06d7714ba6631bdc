"""Search spaces: what an architecture can be.

Reading order: space, choices, compositions, conditional, pyglove (which is not imported here:
PyGlove takes its time).
"""

from esenas_jax.spaces.choices import FloatRange, OneOf, SubsetOf, permutation
from esenas_jax.spaces.compositions import Product, Repeat
from esenas_jax.spaces.conditional import Chosen, Conditional
from esenas_jax.spaces.space import Space, same

__all__ = [
    "Chosen",
    "Conditional",
    "FloatRange",
    "OneOf",
    "Product",
    "Repeat",
    "Space",
    "SubsetOf",
    "permutation",
    "same",
]
