"""A pruned network whose edges share weights, and its entropy code.

The three stages of Deep Compression (arXiv 1510.00149): `prune` keeps the largest weights,
`quantize` lets them share values, `encode` makes bytes of what is left. The first two leave
policies, to be trained on by gradient or by evolution.
"""

import itertools
import struct
import warnings
import zlib
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from esenas_jax import _checks
from esenas_jax.policies import costs
from esenas_jax.policies.feedforward import normal
from esenas_jax.policies.fixed import Pruned, trained_parameters
from esenas_jax.policies.partition import coloured
from esenas_jax.policies.policy import Policy
from esenas_jax.types import Array, Cost, Genotype


class Quantized(NamedTuple):
    """A pruned policy whose edges share weights."""

    policy: Policy  # a partition: weights shared in each layer in turn, then biases
    params: np.ndarray  # float32 [P], where its training begins
    genotype: np.ndarray  # int32 [K], the colour of each edge within its layer
    edges: np.ndarray  # int32 [K], those kept
    num_weights: int  # shared ones; the parameters after them are biases


def quantize(policy: Policy, pruned: Pruned, params: Array | np.ndarray, bits: int) -> Quantized:
    """Return a pruned policy whose edges have 2^bits distinct weights in each layer.

    Each layer's weights are clustered by k-means from centres evenly spaced between the smallest
    and the largest (arXiv 1510.00149, section 3.2, linear initialisation); a weight becomes its
    cluster's centre. The policy is a partition policy: its shared weights are trained as they are,
    and its colours could be searched too.

    Args:
        policy: that was pruned, whose `shapes` tell the layers apart.
        pruned: what `prune` made of it.
        params: parameters of the pruned policy [K + biases], trained on or as they were.
        bits: of a colour, in [1, 16].

    Raises:
        TypeError, ValueError: if a number is outside its range, `params` are of another policy, or
            its kernels are not all matrices.
    """
    colours = 2 ** _checks.integer("bits", bits, 1, 16)
    trained = trained_parameters(pruned.policy, params)
    ends = np.cumsum([n_in * n_out for n_in, n_out in policy.shapes])
    if not ends.size or ends[-1] != policy.max_edges:
        raise ValueError(
            f"the policy's kernels must all be matrices or convolutions, got shapes "
            f"{policy.shapes} of {policy.max_edges} edges."
        )
    layer = _layers(policy, pruned.edges)
    kept = pruned.edges.size
    weights, others = np.split(trained, [kept])
    genotype = np.zeros(kept, np.int32)
    centres = np.zeros((ends.size, colours), np.float32)
    for j in range(ends.size):
        mine = layer == j
        if mine.any():
            centres[j], genotype[mine] = _clusters(weights[mine], colours)
    sizes = [int((layer == j).sum()) for j in range(ends.size)]
    base = pruned.policy._replace(max_edges=kept)
    shared = coloured(base, colours, sizes, normal, normal)
    start = np.concatenate([centres.ravel(), others])

    def cost(genotype: Genotype) -> Cost:
        """Count the mask beside the colours."""
        mask, made = pruned.policy.cost(()), shared.cost(genotype)
        whole = costs.WEIGHT_BITS * mask.weights
        return made._replace(
            bits=made.bits + mask.bits - whole,
            entropy_bits=made.entropy_bits + mask.entropy_bits - whole.astype(jnp.float32),
        )

    small = shared._replace(
        init=lambda key: jnp.asarray(start), cost=cost, max_edges=policy.max_edges
    )
    return Quantized(small, start, genotype, pruned.edges, centres.size)


def encode(policy: Policy, quantized: Quantized, params: Array | np.ndarray) -> bytes:
    """Return the bytes that `decode` makes the network of.

    Distances between the edges kept, and their colours, are each Huffman-coded (arXiv 1510.00149,
    section 4); the shared weights that are used, and the biases, are float32.

    Args:
        policy: that was pruned and quantized.
        quantized: what became of it.
        params: parameters of the quantized policy [P], trained on or as they were.

    Raises:
        ValueError: if `params` are of another policy.
    """
    trained = trained_parameters(quantized.policy, params)
    shared, biases = np.split(trained, [quantized.num_weights])
    where = quantized.genotype + _first_colours(policy, quantized.edges, shared.size)
    used = np.zeros(shared.size, bool)
    used[where] = True
    # A distance of 255 or more is as many 255, which go on, and the rest.
    longer, left = np.divmod(np.diff(quantized.edges, prepend=-1) - 1, 255)
    distances = np.insert(left, np.repeat(np.arange(left.size), longer), 255)
    body = [
        _huffman(distances.astype(np.uint8).tobytes()),
        _huffman(quantized.genotype.astype(_colour_type(policy, shared.size)).tobytes()),
        np.packbits(used).tobytes(),
        np.concatenate([shared[used], biases]).astype("<f4").tobytes(),
    ]
    data, sizes = b"".join(body), (len(body[0]), len(body[1]))
    return _HEADER.pack(_MAGIC, _sum(policy, data), shared.size, *sizes) + data


def decode(policy: Policy, data: bytes) -> np.ndarray:
    """Return the parameters [P] of the policy that was compressed: 0 where an edge was pruned.

    Args:
        policy: that was pruned and quantized; `policy.bind(params, ())` is the network.
        data: what `encode` returned.

    Raises:
        ValueError: if they are no such bytes, or of another policy.
    """
    try:
        magic, check, num_shared, *sizes = _HEADER.unpack_from(data)
        if magic != _MAGIC or check != _sum(policy, data[_HEADER.size :]):
            raise ValueError("their check sum, which includes the layers' sizes, is another one")
        ends = np.cumsum([_HEADER.size, *sizes, -(-num_shared // 8)])
        distances, colours, used = (data[begin:end] for begin, end in itertools.pairwise(ends))
        left = np.frombuffer(zlib.decompress(distances, -15), np.uint8).astype(np.int64)
        place = np.cumsum(np.where(left == 255, 255, left + 1)) - 1
        kept = place[left < 255]
        genotype = np.frombuffer(
            zlib.decompress(colours, -15), _colour_type(policy, num_shared)
        ).astype(np.int32)
        flags = np.unpackbits(np.frombuffer(used, np.uint8), count=num_shared).astype(bool)
        numbers = np.frombuffer(data[ends[-1] :], "<f4")
        shared = np.zeros(num_shared, np.float32)
        shared[flags] = numbers[: flags.sum()]
        params = np.zeros(policy.num_params, np.float32)
        params[kept] = shared[genotype + _first_colours(policy, kept, num_shared)]
        params[policy.max_edges :] = numbers[flags.sum() :]
    except (struct.error, zlib.error, ValueError, IndexError) as error:
        raise ValueError(
            f"data must be the bytes of a compressed policy of {policy.max_edges} edges: {error}."
        ) from error
    return params


_HEADER, _MAGIC = struct.Struct("<4sIIII"), b"esq1"


def _sum(policy: Policy, data: bytes) -> int:
    return zlib.crc32(repr((policy.shapes, policy.num_params)).encode(), zlib.crc32(data))


def _layers(policy: Policy, edges: np.ndarray) -> np.ndarray:
    """Return the layer of each edge."""
    ends = np.cumsum([n_in * n_out for n_in, n_out in policy.shapes])
    return np.searchsorted(ends, edges, side="right").astype(np.int32)


def _first_colours(policy: Policy, edges: np.ndarray, num_shared: int) -> np.ndarray:
    """Return where the palette of each edge's layer begins among the shared weights."""
    return _layers(policy, edges) * (num_shared // len(policy.shapes))


def _colour_type(policy: Policy, num_shared: int) -> str:
    return "<u1" if num_shared // len(policy.shapes) <= 256 else "<u2"


def _huffman(data: bytes) -> bytes:
    """Return Huffman-coded bytes: Deflate's, without its search for repetitions."""
    coder = zlib.compressobj(9, wbits=-15, strategy=zlib.Z_HUFFMAN_ONLY)
    return coder.compress(data) + coder.flush()


def _clusters(weights: np.ndarray, colours: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the centres of clusters of numbers [n], and the cluster of each [n]."""
    from scipy.cluster.vq import kmeans2  # here, because it takes its time

    first = np.linspace(weights.min(), weights.max(), colours, dtype=np.float64)
    with warnings.catch_warnings():
        # A centre that no number is near stays where it is, and is not used.
        warnings.filterwarnings("ignore", "One of the clusters is empty")
        centres, mine = kmeans2(
            weights.astype(np.float64)[:, None], first[:, None], iter=100, minit="matrix"
        )
    return centres[:, 0].astype(np.float32), mine.astype(np.int32)
