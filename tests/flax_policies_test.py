"""Flax modules as policies: what is searched, what is always there, and what is refused."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from esenas_jax import es_enas, policies, strategies, tasks
from esenas_jax.controllers import random

KEY = jax.random.key(0)


class Mlp(nn.Module):
    """The dense policy 4-5-2 of this library."""

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Dense(5)(x))
        return nn.tanh(nn.Dense(2, use_bias=False)(x))


class Head(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.LayerNorm()(nn.Dense(3)(x))


class Images(nn.Module):
    """A convolution, and dense layers of which one is nested."""

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Conv(2, (3, 3), name="conv")(x))
        x = Head(name="head")(x.ravel())
        return nn.Dense(2, name="out")(nn.tanh(x))


IMAGE = jax.ShapeDtypeStruct((4, 4, 1), jnp.float32)  # 16 numbers
# conv: 3 x 3 x 1 x 2 = 18, used at 16 places; head: 32 x 3 = 96; out: 3 x 2 = 6.
KERNELS = {"conv": 18, "head/Dense_0": 96, "out": 6}
BIASES = 2 + 3 + 3 + 3 + 2  # those of the layers, LayerNorm's scale among them


def images(**options):
    return policies.from_flax(Images(), IMAGE, **options)


def acts(policy, params, genotype, observations):
    return acting(policy)(params, genotype, observations)


@functools.cache
def acting(policy):
    @jax.jit
    def act(params, genotype, observations):
        network = policy.bind(params, genotype)
        return jax.vmap(policy.apply, in_axes=(None, 0))(network, observations)

    return act


def test_an_mlp_searched_over_all_of_its_edges_is_the_dense_policy():
    dense = policies.dense(4, (5,), 2)
    ours = policies.from_flax(Mlp(), jnp.zeros(4), num_edges=dense.max_edges)
    assert (ours.max_edges, ours.num_params, ours.shapes) == (30, 35, dense.shapes)
    genotype = jax.jit(ours.space.sample)(KEY)
    params = jax.random.normal(KEY, (35,))
    observations = jax.random.normal(KEY, (9, 4))
    np.testing.assert_allclose(
        acts(ours, params, genotype, observations),
        acts(dense, params, (), observations),
        rtol=0,
        atol=1e-5,
    )
    costs = (ours.cost(genotype), dense.cost(()))
    for name in ("edges", "multiplications", "weights", "biases"):
        assert getattr(costs[0], name) == getattr(costs[1], name), name


@pytest.mark.parametrize(
    "options",
    [
        {"search": None},
        pytest.param({"num_edges": 120}, marks=pytest.mark.slow),
        {"search": "mask", "where": "out"},
        {"num_edges": 20, "where": "^head/"},
    ],
    ids=str,
)
def test_it_acts_as_the_module_does(options):
    policy = images(**options)
    module = Images()
    started = jax.jit(module.init)(KEY, jnp.zeros(IMAGE.shape))
    params = jax.jit(policy.init)(KEY)
    assert params.shape == (policy.num_params,) == (sum(KERNELS.values()) + BIASES,)
    genotype = jax.jit(policy.space.sample)(KEY)
    kernels = {name: np.ones(size, bool) for name, size in KERNELS.items()}
    if options == {"search": "mask", "where": "out"}:
        kernels["out"] = np.asarray(genotype) == 1
    elif options.get("where") == "^head/":
        kernels["head/Dense_0"] = np.isin(np.arange(96), genotype)
    for name, kept in kernels.items():
        layer = started["params"]
        for part in name.split("/"):
            layer = layer[part]
        kernel = np.asarray(layer["kernel"])
        layer["kernel"] = np.where(kept.reshape(kernel.shape), kernel, np.float32(0))
    observations = jax.random.normal(KEY, (3, 16))
    apply = jax.jit(module.apply)
    expected = [apply(started, x.reshape(IMAGE.shape)) for x in observations]
    np.testing.assert_allclose(
        acts(policy, params, genotype, observations), expected, rtol=0, atol=1e-5
    )


def test_shared_weights_take_the_place_of_the_kernels_searched():
    policy = images(search="partition", num_partitions=3, where=lambda layer: layer != "conv")
    assert policy.num_params == 3 + KERNELS["conv"] + BIASES
    assert policy.space.times == 96 + 6
    genotype = jax.jit(policy.space.sample)(KEY)
    params = jax.jit(policy.init)(KEY).at[:3].set(jnp.array([1.0, 2.0, 3.0]))
    bound = jax.jit(policy.bind)(params, genotype)
    shared = np.concatenate(
        [np.ravel(bound["head"]["Dense_0"]["kernel"]), np.ravel(bound["out"]["kernel"])]
    )
    np.testing.assert_array_equal(shared, np.asarray(genotype) + 1.0)
    # Of the rest the convolution comes first: its 2 biases, then its kernel.
    np.testing.assert_array_equal(np.ravel(bound["conv"]["kernel"]), params[5:23])
    assert policy.used(genotype).all()
    rarely = jnp.zeros(102, jnp.int32).at[7].set(2)
    np.testing.assert_array_equal(np.flatnonzero(~policy.used(rarely)), [1])
    cost = policy.cost(rarely)
    assert (cost.edges, cost.weights, cost.biases) == (120, 18 + 2, BIASES)
    assert cost.multiplications == 16 * 18 + 96 + 6
    assert cost.bits == 32 * 20 + 102 * 2


def test_a_pruned_weight_of_a_kernel_cannot_matter():
    policy = images(num_edges=30)
    params, genotype = jax.jit(policy.init)(KEY), jax.jit(policy.space.sample)(KEY)
    observations = jax.random.normal(KEY, (3, 16))
    used = policy.used(genotype)
    assert int(used.sum()) == 30 + BIASES
    poisoned = jnp.where(used, params, jnp.nan)
    np.testing.assert_array_equal(
        acts(policy, poisoned, genotype, observations), acts(policy, params, genotype, observations)
    )


def test_what_a_convolution_costs_by_hand():
    policy = images(num_edges=2, where="conv|out")
    # The kernels lie in the order of their layers' names: 0 .. 17 of conv, then out.
    cost = policy.cost(jnp.array([3, 20], jnp.int32))
    assert (cost.edges, cost.weights, cost.biases) == (96 + 2, 96 + 2, BIASES)
    assert cost.multiplications == 16 + 1 + 96
    assert cost.bits == 32 * 98 + 18 + 6
    whole = images(search=None).cost(())
    assert (whole.edges, whole.multiplications) == (120, 16 * 18 + 96 + 6)
    assert whole.bits == 32 * 120


class Transposed(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.ConvTranspose(2, (3,))(inputs=x[:, None]).ravel())


def test_a_layer_may_be_called_by_the_names_of_its_arguments():
    policy = policies.from_flax(Transposed(), jnp.zeros(4), num_edges=5)
    # Each number of the convolution's kernel meets each of 4 inputs.
    whole = policies.from_flax(Transposed(), jnp.zeros(4), search=None).cost(())
    assert (policy.max_edges, int(whole.multiplications)) == (6 + 16, 4 * 6 + 16)


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.MultiHeadDotProductAttention(num_heads=2)(x.reshape(2, 4))
        return nn.Dense(2)(x.ravel())


def test_kernels_that_are_no_matrices_are_compared_with_none():
    assert policies.from_flax(Attention(), jnp.zeros(8), num_edges=5).shapes == ()
    assert images(num_edges=5).shapes == ((9, 2), (32, 3), (3, 2))


def test_a_number_of_a_kernel_of_the_users_own_counts_once():
    class Own(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x @ self.param("kernel", nn.initializers.ones, (x.shape[-1], 3))

    policy = policies.from_flax(Own(), jax.ShapeDtypeStruct((4,), jnp.float32), search=None)
    assert policy.cost(()).multiplications == 12


def test_multiplications_of_a_large_image_stay_the_largest_number():
    image = jax.ShapeDtypeStruct((2048, 2048, 8), jnp.float32)  # 2^22 places x 2^10 numbers

    class Large(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(1)(nn.Conv(128, (1, 1))(x).mean((0, 1)))

    cost = policies.from_flax(Large(), image, num_edges=2).cost
    places = 2048 * 2048
    assert cost(jnp.array([0, 1], jnp.int32)).multiplications == 2 * places
    whole = policies.from_flax(Large(), image, search="mask")
    assert whole.cost(jnp.ones(1024 + 128, jnp.int32)).multiplications == 2**31 - 1
    few = jnp.zeros(1152, jnp.int32).at[:500].set(1)
    assert whole.cost(few).multiplications == 500 * places
    assert policies.from_flax(Large(), image, search=None).cost(()).multiplications == 2**31 - 1


def test_it_can_be_searched():
    def evaluate(key, network, apply):
        return tasks.single_score(-jnp.sum((apply(network, jnp.ones(16)) - 0.3) ** 2))

    policy = images(num_edges=30)
    search = es_enas(
        policy, tasks.SingleShot(16, 2, evaluate), strategies.es(6, 3), random(policy.space)
    )
    state, metrics = jax.jit(search.run, static_argnums=2)(KEY, jax.jit(search.init)(KEY), 3)
    assert np.isfinite(metrics.exact_mean).all()
    assert np.isfinite(state.strategy.params).all()


# --- bad input ------------------------------------------------------------------------------------


class Normalized(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=False)(nn.Dense(2)(x))


class Noisy(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=False)(nn.Dense(2)(x))


class Empty(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x


class Square(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x.reshape(2, 2))


class Two(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x), x


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (
            Normalized(),
            {},
            (
                "the module must have no variables but its parameters, got batch_stats: a policy "
                "has no state that changes."
            ),
        ),
        (
            Noisy(),
            {},
            (
                "the module must need no random numbers but for its start, got: Dropout_0 needs "
                'PRNG for "dropout".'
            ),
        ),
        (
            nn.Dropout(0.5, deterministic=False),
            {},
            (
                "the module must need no random numbers but for its start, got: Dropout needs "
                'PRNG for "dropout".'
            ),
        ),
        (Empty(), {}, "the module must have parameters, got none in Empty."),
        (
            Square(),
            {},
            (
                "the module must take an example_input of shape (3,), got: cannot reshape array of "
                "shape (3,) (size 3) into shape (2, 2) (size 4)."
            ),
        ),
        (Two(), {}, "the module must return one array, got tuple."),
        (3, {}, "module must be a flax.linen module, got int."),
        pytest.param(
            nnx.Linear(3, 2, rngs=nnx.Rngs(0)),
            {},
            "module must be a flax.linen module, got flax.nnx.nn.linear.Linear.",
            id="an nnx module",
        ),
        (nn.Dense(2), {"num_edges": 7}, "num_edges must be in [1, 6], got 7."),
        (
            nn.Dense(2),
            {"num_edges": None},
            "num_edges must be given where search is 'edges', got None.",
        ),
        (
            nn.Dense(2),
            {"search": "mask"},
            "num_edges must be None unless search is 'edges', got 2.",
        ),
        (
            nn.Dense(2),
            {"search": "partition", "num_edges": None},
            "num_partitions must be given where search is 'partition', got None.",
        ),
        (
            nn.Dense(2),
            {"search": "weights"},
            "search must be one of edges, mask, partition, None, got 'weights'.",
        ),
        (
            Mlp(),
            {"where": "conv"},
            "where must select a layer with a kernel, of 'Dense_0', 'Dense_1', got 'conv'.",
        ),
        (
            nn.Dense(2),
            {"where": "("},
            (
                "where must be a regular expression, got '(': missing ), unterminated subpattern "
                "at position 0."
            ),
        ),
        (nn.Dense(2), {"where": 3}, "where must be a function or a regular expression, got 3."),
        (
            nn.Dense(2),
            {"search": None, "num_edges": None, "where": "x"},
            "where must be None when nothing is searched, got 'x'.",
        ),
        (
            nn.Dense(2),
            {"example_input": jnp.zeros(3, jnp.int32)},
            "example_input must be an array of floating numbers, got int32.",
        ),
        (
            nn.Dense(2),
            {"example_input": [1.0]},
            "example_input must be an array of floating numbers, got list.",
        ),
    ],
    ids=str,
)
def test_bad_modules_are_refused_in_one_sentence(module, options, message):
    given = {"example_input": jnp.zeros(3), "num_edges": 2} | options
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}$"):
        policies.from_flax(module, **given)


def test_a_module_of_other_sizes_than_the_task_is_refused():
    policy = policies.from_flax(nn.Dense(1), jnp.zeros(4), num_edges=2)
    message = "observation size must be the task's, 3, got 4"
    with pytest.raises(ValueError, match=message):
        es_enas(policy, tasks.episodes(tasks.pendulum()), strategies.es(4, 2), random(policy.space))
