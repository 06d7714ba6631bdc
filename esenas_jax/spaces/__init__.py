"""Search spaces: what an architecture can be. Reading order: space, choices, compositions."""

from esenas_jax.spaces.choices import OneOf, SubsetOf
from esenas_jax.spaces.compositions import Product, Repeat
from esenas_jax.spaces.space import Space

__all__ = ["OneOf", "Product", "Repeat", "Space", "SubsetOf"]
