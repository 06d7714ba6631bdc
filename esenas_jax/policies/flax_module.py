"""Any Flax network as a policy: its kernels are searched, the rest of it is always there."""

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from esenas_jax import _checks
from esenas_jax.policies import costs
from esenas_jax.policies.dense import NOTHING
from esenas_jax.policies.feedforward import Initializer, normal
from esenas_jax.policies.masks import any_edges, so_many_edges
from esenas_jax.policies.partition import coloured
from esenas_jax.policies.policy import Policy
from esenas_jax.types import Array, Cost, Genotype, Key, PyTree

if TYPE_CHECKING:
    from flax import linen as nn

SEARCHES = ("edges", "mask", "partition", None)


class Leaf(NamedTuple):
    """One array of a module's parameters."""

    layer: str  # the path of its module, "encoder/Conv_0"
    shape: tuple[int, ...]
    dtype: Any
    is_kernel: bool
    searched: bool
    uses: int  # of each of its numbers, in one application of the network
    matrix: tuple[int, int] | None  # (in, out) of a kernel that is a matrix

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def from_flax(
    module: "nn.Module",
    example_input: Any,
    *,
    search: Literal["edges", "mask", "partition"] | None = "edges",
    num_edges: int | None = None,
    num_partitions: int | None = None,
    where: str | Callable[[str], bool] | None = None,
    weight_init: Initializer = normal,
) -> Policy:
    """Return the policy that a Flax linen module is, its kernels searched.

    Kernels are the parameters named "kernel" with two axes or more: those of dense layers,
    convolutions, attention. An edge is one number of a kernel. Parameters that are not searched
    (biases, scales, embeddings, the kernels of layers left out) are in every architecture. All
    start as the module starts them.

    Args:
        module: takes one array, and returns the action as an array of any shape. It has no
            variables besides its parameters, and needs no random numbers.
        example_input: an observation in the shape that the module takes, or its shape and dtype (a
            `jax.ShapeDtypeStruct`). The policy sees observations [O] and gives them that shape.
        search: what is searched: "edges" keeps `num_edges` of the edges, "mask" any number of
            them, "partition" gives each edge one of `num_partitions` shared weights, None searches
            nothing.
        num_edges: K of "edges", in [1, edges searched].
        num_partitions: K of "partition", at least 1.
        where: the layers whose kernels are searched, by their paths, "encoder/Conv_0" say: a
            function of the path, or a regular expression that is found in it; by default all.
        weight_init: of the shared weights [K] of "partition", which the module has no start for.

    Returns:
        A policy over `SubsetOf(edges searched, K)`, `Repeat(OneOf(2), edges searched)`,
        `Repeat(OneOf(K), edges searched)` or a space with one element. Its parameters are the
        kernels that are searched (the shared weights of "partition" in their place; every kernel if
        nothing is searched), then all others, each in the order of `jax.tree.leaves`. `Cost.biases`
        counts what is in no kernel. `Cost.multiplications` is exact for dense layers and
        convolutions (padding included) that are called directly, not inside `nn.scan`, `nn.RNN` or
        `nn.vmap`; a number of any other kernel counts once. Costs are compared with matrices of the
        same layers if every kernel is one: those of convolutions are [window * in, out], those of
        attention are none.

    Raises:
        TypeError, ValueError: in one sentence, if it cannot be: the module does not take the
            example, has other variables or needs random numbers, no kernel is selected, or a
            number is outside its range.

    Example:
        >>> from flax import linen as nn
        >>> module = nn.Sequential([nn.Dense(8), nn.tanh, nn.Dense(2)])
        >>> policy = from_flax(module, jnp.zeros(4), num_edges=10, where="layers_0")
        >>> policy.obs_size, policy.action_size, policy.num_params, str(policy.space)
        (4, 2, 58, '10 of 32')
    """
    _checks.known("search", search, SEARCHES)
    if where is not None and search is None:
        raise ValueError(f"where must be None when nothing is searched, got {where!r}.")
    for name, value, of in (
        ("num_edges", num_edges, "edges"),
        ("num_partitions", num_partitions, "partition"),
    ):
        if value is not None and search != of:
            raise ValueError(f"{name} must be None unless search is {of!r}, got {value!r}.")
        if value is None and search == of:
            raise ValueError(f"{name} must be given where search is {of!r}, got None.")
    dtype = getattr(example_input, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            "example_input must be an array of floating numbers, got "
            f"{dtype or type(example_input).__name__}."
        )
    example = jax.ShapeDtypeStruct(example_input.shape, jax.dtypes.canonicalize_dtype(dtype))
    structure, action_size, leaves = _inspect(module, example, _selector(where, search))
    kernels = [leaf for leaf in leaves if leaf.is_kernel]
    edges = sum(leaf.size for leaf in leaves if leaf.searched)
    if search is not None and not edges:
        layers = ", ".join(repr(leaf.layer) for leaf in kernels) or "which there is none"
        raise ValueError(f"where must select a layer with a kernel, of {layers}, got {where!r}.")

    # Where each array lies in the parameters: what is searched comes first; of a policy with
    # nothing to search every kernel does, as policies that are made of one expect it.
    def first(i: int) -> bool:
        return leaves[i].is_kernel if search is None else leaves[i].searched

    order = sorted(range(len(leaves)), key=lambda i: not first(i))
    ends = np.cumsum([leaves[i].size for i in order])[:-1]

    def init(key: Key) -> Array:
        start = module.init(key, jnp.zeros(example.shape, example.dtype))["params"]
        arrays = jax.tree.leaves(start)
        return jnp.concatenate([jnp.ravel(arrays[i]).astype(jnp.float32) for i in order])

    def bind(params: Array, genotype: Genotype) -> PyTree:
        del genotype
        arrays = dict(zip(order, jnp.split(params, ends), strict=True))
        return structure.unflatten(
            arrays[i].reshape(leaf.shape).astype(leaf.dtype) for i, leaf in enumerate(leaves)
        )

    def apply(network: PyTree, obs: Array) -> Array:
        given = obs.reshape(example.shape).astype(example.dtype)
        action: Any = module.apply({"params": network}, given)
        return jnp.ravel(action).astype(jnp.float32)

    matrices = [leaf.matrix for leaf in kernels if leaf.matrix]
    num_params, num_kernel = (sum(leaf.size for leaf in some) for some in (leaves, kernels))
    multiplications = sum(leaf.size * leaf.uses for leaf in kernels)

    def whole(genotype: Genotype) -> Cost:
        del genotype
        return costs.cost(
            edges=num_kernel,
            multiplications=multiplications,
            weights=num_kernel,
            biases=num_params - num_kernel,
        )

    base = Policy(
        obs_size=math.prod(example.shape),
        action_size=action_size,
        num_params=num_params,
        max_edges=edges,
        space=NOTHING,
        init=init,
        bind=bind,
        apply=apply,
        used=lambda genotype: jnp.ones(num_params, bool),
        cost=whole,
        shapes=tuple(matrices) if len(matrices) == len(kernels) else (),
    )
    if search == "partition":
        # What is not shared starts as the module starts it.
        policy = coloured(
            base, num_partitions, [edges], weight_init, lambda key, shape: init(key)[edges:]
        )
    elif search is not None:
        pruned = so_many_edges(base, num_edges) if search == "edges" else any_edges(base)
        uses = np.concatenate([np.full(leaf.size, leaf.uses) for leaf in kernels if leaf.searched])
        always = multiplications - int(uses.sum())

        def cost(genotype: Genotype) -> Cost:
            kept = jnp.where(pruned.used(genotype)[:edges], uses.astype(np.int32), 0)
            return pruned.cost(genotype)._replace(multiplications=costs.summed(kept, always))

        policy = pruned._replace(cost=cost)
    else:
        policy = base
    return policy._replace(max_edges=num_kernel)


def _selector(where: Any, search: str | None) -> Callable[[str], bool]:
    if search is None:
        return lambda layer: False
    if where is None:
        return lambda layer: True
    if isinstance(where, str):
        try:
            pattern = re.compile(where)
        except re.error as error:
            raise ValueError(
                f"where must be a regular expression, got {where!r}: {error}."
            ) from None
        return lambda layer: pattern.search(layer) is not None
    if not callable(where):
        raise TypeError(f"where must be a function or a regular expression, got {where!r}.")
    return lambda layer: bool(where(layer))


def _inspect(
    module: "nn.Module", example: jax.ShapeDtypeStruct, selected: Callable[[str], bool]
) -> tuple[Any, int, list[Leaf]]:
    """Return the tree of a module's parameters, its number of outputs, and its parameters."""
    from flax import errors
    from flax import linen as nn

    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a flax.linen module, got {_type_name(module)}.")
    uses: dict[str, int] = {}
    convolutions: set[str] = set()

    def note(next_fun: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        out = next_fun(*args, **kwargs)
        if context.method_name == "__call__":
            layer = "/".join(context.module.path)
            x = args[0] if args else kwargs.get("inputs")
            uses[layer] = uses.get(layer, 0) + _uses(context.module, x, out)
            if isinstance(context.module, nn.Conv | nn.ConvTranspose):
                convolutions.add(layer)
        return out

    def apply(variables: PyTree, x: Array) -> Array:
        with nn.intercept_methods(note):
            out: Any = module.apply(variables, x)
            return out

    try:
        variables = jax.eval_shape(module.init, jax.random.key(0), example)
        others = sorted(set(variables) - {"params"})
        action = None if others else jax.eval_shape(apply, variables, example)
    except errors.InvalidRngError as error:
        # Flax calls the outermost module None.
        got = re.sub("^None needs", f"{type(module).__name__} needs", _first_line(error))
        raise ValueError(
            f"the module must need no random numbers but for its start, got: {got}"
        ) from error
    except Exception as error:
        raise ValueError(
            f"the module must take an example_input of shape {example.shape}, got: "
            f"{_first_line(error)}"
        ) from error
    if others:
        raise ValueError(
            f"the module must have no variables but its parameters, got {', '.join(others)}: a "
            "policy has no state that changes."
        )
    if not isinstance(action, jax.ShapeDtypeStruct):
        raise TypeError(f"the module must return one array, got {type(action).__name__}.")
    found, structure = jax.tree.flatten_with_path(variables.get("params", {}))
    leaves = []
    for path, leaf in found:
        layer, _, name = jax.tree_util.keystr(path, simple=True, separator="/").rpartition("/")
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"parameters must be floating numbers, got {leaf.dtype} in {layer!r}.")
        is_kernel = name == "kernel" and len(leaf.shape) >= 2
        is_matrix = is_kernel and (len(leaf.shape) == 2 or layer in convolutions)
        leaves.append(
            Leaf(
                layer=layer,
                shape=leaf.shape,
                dtype=leaf.dtype,
                is_kernel=is_kernel,
                searched=is_kernel and selected(layer),
                uses=uses.get(layer, 1),
                matrix=(math.prod(leaf.shape[:-1]), leaf.shape[-1]) if is_matrix else None,
            )
        )
    if not leaves:
        raise ValueError(f"the module must have parameters, got none in {type(module).__name__}.")
    return structure, math.prod(action.shape), leaves


def _uses(module: "nn.Module", x: Any, out: Any) -> int:
    """Return how often a call of a layer with x multiplies each number of its kernel."""
    from flax import linen as nn

    if isinstance(module, nn.Dense | nn.DenseGeneral | nn.Conv):
        return out.size // int(np.prod(module.features))
    if isinstance(module, nn.ConvTranspose):
        return x.size // x.shape[-1]
    return 1


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.partition(" (http")[0].rstrip(".") + "."


def _type_name(value: Any) -> str:
    """Return the name of a value's type, with its module's: flax.nnx.nn.linear.Linear say."""
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
