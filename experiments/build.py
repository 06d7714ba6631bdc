"""From a config to a search: the only reader of config fields.

A config has one section a piece. A section names a public function and gives its keyword arguments;
`section` fills in the defaults of all arguments that are not given, so that each can be overridden
on the command line and `config.json` is complete. An argument that is itself a function (a shaping,
an activation, an optimiser) is given by its name.
"""

import dataclasses
import difflib
import functools
import inspect
import itertools
import json
import math
import sys
import tempfile
import traceback
import types
import typing
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict, config_dict

import esenas_jax
from esenas_jax import (
    Population,
    _checks,
    controllers,
    objectives,
    policies,
    rules,
    strategies,
    tasks,
)
from esenas_jax import asynchronous as make_asynchronous
from esenas_jax import learners as make_learners
from esenas_jax.controllers import Controller
from esenas_jax.learners import Learners
from esenas_jax.objectives import Objective
from esenas_jax.policies import Policy
from esenas_jax.rules import Rule
from esenas_jax.runs import Searcher, variable
from esenas_jax.search import Search, Starts, es_enas
from esenas_jax.spaces import Repeat, Space
from esenas_jax.strategies import Strategy
from esenas_jax.tasks import Environment, Normalizer, Task
from esenas_jax.tasks.normalizer import Moments
from esenas_jax.tasks.task import Episodes
from experiments.cores import usable_cores

NORMALIZERS: dict[str, Callable[[], Normalizer]] = {
    "none": tasks.identity_normalizer,
    "es": tasks.es_normalizer,
    "ars": tasks.ars_normalizer,
}


CLASSIC: dict[str, Callable[[], Environment]] = {
    "pendulum": tasks.pendulum,
    "mountain_car": tasks.mountain_car,
}


def environment(
    environment: str,
    backend: str | None = None,
    horizon: int = 1000,
    action_repeat: int = 1,
    episodes: int = 1,
    normalizer: str = "none",
) -> Task:
    """Episodes in pendulum, mountain_car, or any Brax environment on any of its backends."""
    if environment not in CLASSIC:
        _checks.known("environment", environment, [*CLASSIC, *tasks.brax_environments()])
        world = tasks.brax_environment(environment, backend)
    elif backend is None:
        world = CLASSIC[environment]()
    else:
        raise ValueError(f"backend must be None for {environment}, got {backend!r}.")
    return tasks.episodes(
        world,
        horizon=horizon,
        action_repeat=action_repeat,
        episodes=episodes,
        normalizer=_named("normalizer", normalizer, NORMALIZERS)(),
    )


def regression(
    target_seed: int = 0, degree: int = 4, batch_size: int = 2048, target_scale: float = 5.0
) -> Task:
    """The toy polynomial regression."""
    return tasks.polynomial_regression(
        jax.random.key(target_seed),
        degree=degree,
        batch_size=batch_size,
        target_scale=target_scale,
    )


def magnitude_pruned(
    obs_size: int,
    hidden: Sequence[int],
    action_size: int,
    num_edges: int,
    trained: str | Sequence[float] | None = None,
    hidden_activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
    output_activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
    linear_first_hidden: bool = False,
) -> Policy:
    """The largest weights of a trained dense policy, given as the policy.npz of its run.

    The dense policy must have the same layers and activations. A run starts from the moments of
    observations in that file, too.
    """
    network = {
        "hidden_activation": hidden_activation,
        "output_activation": output_activation,
        "linear_first_hidden": linear_first_hidden,
    }
    if trained is None or isinstance(trained, str):
        sizes = {"obs_size": obs_size, "hidden": tuple(hidden), "action_size": action_size}
        found = trained_policy(trained)
        _same_network(trained, found.described, sizes | network)
        weights = found.weights
    else:
        weights = np.asarray(trained, np.float32)
    return policies.magnitude_pruned(
        obs_size, hidden, action_size, num_edges, weights, **network
    )  # fmt: skip


class Trained(typing.NamedTuple):
    """What a policy.npz holds of the run that wrote it."""

    weights: np.ndarray  # [P]
    moments: Moments  # of the observations that they were trained to see
    described: Mapping[str, Any]  # its policy's config section, and the sizes of its task


def describes_a_policy(described: Any) -> bool:
    """Return whether the config in a policy.npz has what `build_policy` needs."""
    if not isinstance(described, dict) or not isinstance(described.get("policy"), dict):
        return False
    sizes = (described.get("obs_size"), described.get("action_size"))
    return "name" in described["policy"] and all(isinstance(size, int) for size in sizes)


def _same_network(path: str | None, described: Mapping[str, Any], wanted: dict[str, Any]) -> None:
    """Raise ValueError unless a trained policy is the dense one of these layers and activations."""
    section = described["policy"]
    if section["name"] != "dense":
        raise ValueError(
            f"trained must be the policy.npz of a run with the policy dense, got {path!r}, of "
            f"{section['name']}."
        )
    theirs = {"obs_size": described["obs_size"], "action_size": described["action_size"], **section}
    for name, ours in wanted.items():
        if name not in theirs:  # written before there was such an argument
            continue
        choices, value = CHOICES.get(name, {}), theirs[name]
        value = tuple(value) if name == "hidden" else choices.get(value, value)
        if value != ours:
            shown = next((word for word, choice in choices.items() if choice is ours), ours)
            raise ValueError(
                f"trained must be a dense policy of the same layers and activations: {name} is "
                f"{shown!r} here, and {theirs[name]!r} in {path!r}."
            )


@functools.cache
def trained_policy(path: str | None) -> Trained:
    """Return what a run's policy.npz holds; a process that reads it again gets the same.

    Raises:
        ValueError: if there is none, in one sentence.
    """
    try:
        if not path:
            raise ValueError("no file is named")
        with np.load(path) as file:
            moments = Moments(*(file[f"moments_{name}"] for name in Moments._fields))
            described = json.loads(str(file["config"]))
            if not describes_a_policy(described):
                raise ValueError("its config has no policy")
            return Trained(file["weights"], moments, described)
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"trained must be the policy.npz of a finished run with a dense policy, got {path!r}: "
            f"{error}."
        ) from error


def pyglove(
    space: Space,
    num_candidates: int,
    num_objectives: int,
    algorithm: str = "regularized_evolution",
    population_size: int | None = None,
    tournament_size: int | None = None,
    num_best: int = 8,
) -> controllers.Controller:
    """An algorithm of PyGlove, on the host, with the settings of the release and of Iris.

    `population_size` is the candidates of a generation unless it is set, and the batch of
    hill_climb; random has none. `tournament_size` is that of regularized_evolution, by default
    floor(sqrt(population_size)).
    """
    import pyglove as pg  # here, because it takes its time

    size = num_candidates if population_size is None else population_size
    size = _checks.integer("population_size", size, 2)
    tournament = max(2, math.isqrt(size)) if tournament_size is None else tournament_size
    tournament = _checks.integer("tournament_size", tournament, 2, size)
    made: dict[str, Callable[[], pg.DNAGenerator]] = {
        "regularized_evolution": lambda: pg.evolution.regularized_evolution(
            population_size=size, tournament_size=tournament
        ),
        "hill_climb": lambda: pg.evolution.hill_climb(batch_size=size),
        "neat": lambda: pg.evolution.neat(population_size=size),
        "nsga2": lambda: pg.evolution.nsga2(population_size=size),
        "random": pg.geno.Random,
    }
    if algorithm == "neat" and size != num_candidates:
        raise ValueError(
            f"population_size of neat must be the {num_candidates} candidates of a generation, got "
            f"{size}: it breeds from its latest batch alone, which must not be a part of one."
        )
    if tournament_size is not None and algorithm != "regularized_evolution":
        raise ValueError(
            f"tournament_size is of regularized_evolution, and must be None for {algorithm}, got "
            f"{tournament_size}."
        )
    return controllers.pyglove(
        space,
        _named("algorithm", algorithm, made)(),
        num_candidates,
        num_best=num_best,
        num_objectives=num_objectives,
    )


def alone(learner: Search, rule: Rule, devices: int = 1) -> Search:
    """One learner: the search by itself."""
    del devices
    _no_rule(rule, "alone")
    return learner


def _no_rule(rule: Rule, learners: str) -> None:
    if rule.least:
        raise ValueError(
            f"rule must be none with learners {learners}, got one that needs {rule.least} or more."
        )


def population(
    learner: Search, rule: Rule, number: int = 8, every: int = 10, devices: int = 1
) -> Searcher:
    """A population of learners, and a rule that follows every so many generations."""
    return make_learners(learner, number, rule, every=every, devices=devices)


def asynchronous(
    learner: Search, rule: Rule, lags: Sequence[int] = (0,), devices: int = 1
) -> Searcher:
    """Workers that take turns, whose updates are of states that many updates old."""
    del devices
    _no_rule(rule, "asynchronous")
    return make_asynchronous(learner, lags)


def none() -> Rule:
    """No rule: learners ignore each other."""
    return rules.compose()._replace(least=0)


def annealing(temperature: float = 1.0, cooling_rate: float = 1.0) -> Rule:
    """Moves that may be taken back; every time, the temperature is multiplied by the rate."""
    rate = _checks.share("cooling_rate", cooling_rate)
    return rules.annealing(temperature, optax.exponential_decay(1.0, 1, rate))


def tabu(radius: float, ring_size: int = 16) -> Rule:
    """Learners stay away from weights where they have been."""
    return rules.tabu(radius, ring_size)


_RULES: dict[str, Callable[..., Any]] = {
    f.__name__: f for f in (none, rules.culling, annealing, tabu, rules.apart, rules.swarm)
}

# What each section may name. The first arguments of policies (sizes) and controllers (the space)
# come from the task and the policy, not from the config.
FUNCTIONS: dict[str, dict[str, Callable[..., Any]]] = {
    "task": {f.__name__: f for f in (environment, regression, tasks.digits)},
    "policy": {
        f.__name__: f
        for f in (
            policies.dense,
            policies.edge_pruned,
            policies.independent_edges,
            policies.residual_edges,
            policies.boolean_mask,
            policies.op_edges,
            policies.partitioned,
            policies.random_mask,
            magnitude_pruned,
            policies.toeplitz,
            policies.circulant,
            policies.flax_dense,
            policies.flax_convolutional,
        )
    },
    "strategy": {f.__name__: f for f in (strategies.es, strategies.ars)},
    "noise": {
        f.__name__: f
        for f in (
            strategies.gaussian,
            strategies.rademacher,
            strategies.hadamard,
            strategies.shared_table,
        )
    },
    "controller": {
        f.__name__: f
        for f in (
            controllers.constant,
            controllers.random,
            controllers.hill_climbing,
            controllers.regularized_evolution,
            controllers.nsga2,
            controllers.reinforce,
            controllers.ppo,
            controllers.cross_entropy,
            pyglove,
        )
    },
    "objective": {
        f.__name__: f
        for f in (
            objectives.shifted_return,
            objectives.weighted_product,
            objectives.linear_penalty,
            objectives.hard_limit,
            objectives.pareto,
        )
    },
    "population": {"Population": Population},
    "search": {"es_enas": es_enas},
    "learners": {f.__name__: f for f in (alone, population, asynchronous)},
    "rule": _RULES,
    "second_rule": _RULES,
}
FROM_ELSEWHERE = {
    "obs_size", "action_size", "space", "genotype", "num_candidates", "num_objectives",
    "policy", "task", "strategy", "controller", "objective", "population",
    "noise", "devices", "virtual_shards", "learner", "rule",
}  # fmt: skip

_ACTIVATIONS = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "identity": policies.identity,
    "sigmoid": jax.nn.sigmoid,
    "swish": jax.nn.swish,
}
_INITIALIZERS = {
    f.__name__: f
    for f in (
        policies.zeros,
        policies.uniform,
        policies.normal,
        policies.fan_in_normal,
        policies.fan_out_normal,
    )
}


# Those of optax that need nothing but a step size.
_OPTAX = (
    "sgd", "adam", "adamw", "adamax", "amsgrad", "nadam", "radam", "rmsprop", "adagrad",
    "adabelief", "yogi", "lion", "lamb", "lars", "novograd", "sm3",
)  # fmt: skip


_FOR_SEARCH = (*FUNCTIONS, "devices", "devices_share", "virtual_shards")
SHARED_OUT = ("candidates", "runs", "learners")  # what several devices share out

# Arguments that follow from other sections unless they are set.
DERIVED: dict[str, None] = {"population_size": None}  # the candidates of a generation


MOST_STEPS = 100  # groups of decisions that a proposal takes one after the other


def momentum(step_size: Any) -> optax.GradientTransformation:
    """Gradient ascent with momentum 0.9."""
    return optax.sgd(step_size, momentum=0.9)


def decaying(step_size: Any) -> optax.GradientTransformation:
    """Gradient ascent with a step size that every update makes 0.5 % smaller."""
    return optax.sgd(optax.exponential_decay(step_size, 1, 0.995))


# Arguments that are functions, by name.
CHOICES: dict[str, dict[str, Any]] = {
    "shaping": {
        f.__name__: f for f in (strategies.z_score, strategies.centered_ranks, strategies.raw)
    },
    "ranking": {f.__name__: f for f in (strategies.best_half, strategies.largest_difference)},
    "optimizer": {
        "decaying": decaying,
        "momentum": momentum,
        **{name: getattr(optax, name) for name in _OPTAX},
    },
    "hidden_activation": _ACTIVATIONS,
    "output_activation": _ACTIVATIONS,
    "weight_init": _INITIALIZERS,
    "bias_init": _INITIALIZERS,
    "starts": {start.value: start for start in Starts},
    "newcomers": {
        f.__name__: f
        for f in (rules.clones_of_the_best, rules.clones_of_survivors, rules.bred, rules.crossed)
    },
    "unused": {unused.value: unused for unused in strategies.Unused},
    # The second is made when the policy is known, whose nodes group its decisions.
    "parameterisation": {
        f.__name__: f for f in (controllers.factorised, controllers.autoregressive)
    },
}


class ConfigError(ValueError):
    """A config that describes no run, in one sentence."""


def section(kind: str, name: str | None = None, **arguments: Any) -> ConfigDict:
    """Return a config section: a function's name and all of its arguments, defaults filled in.

    Args:
        kind: one of `FUNCTIONS`.
        name: of the function; may be left out where there is only one.
        **arguments: that differ from the defaults.

    Raises:
        ValueError: if there is no such kind, function (the known ones are listed) or argument.
    """
    functions = _named("a section", kind, FUNCTIONS)
    name = name or next(iter(functions))
    function = _named(f"{kind}.name", name, functions)
    out = ConfigDict({"name": name})
    parameters = inspect.signature(function).parameters
    for unknown in arguments.keys() - (parameters.keys() - FROM_ELSEWHERE):
        raise ValueError(
            f"{kind} {name} has no argument {unknown!r}{_nearest(unknown, parameters)}"
        )
    for key, parameter in parameters.items():
        if key in FROM_ELSEWHERE:
            continue
        value = arguments.get(key, parameter.default)
        if value is inspect.Parameter.empty:
            if key not in DERIVED:
                raise ValueError(f"{kind} {name} needs the argument {key!r}.")
            value = DERIVED[key]
        if key in CHOICES and not isinstance(value, str):
            names = [n for n, choice in CHOICES[key].items() if choice == value]
            if not names:
                known = ", ".join(sorted(CHOICES[key]))
                raise ValueError(f"{kind}.{key} must be one of {known}, got {value!r}.")
            value = names[0]
        if value is None:
            value = config_dict.placeholder(_optional_type(function, key))
        out[key] = value
    return out


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a config says, checked."""

    search: Search  # of one learner
    searcher: Searcher  # it, or what is made of it
    runs: tuple[Mapping[str, float], ...]  # seed and swept numbers of every run, one at least
    number: int | None  # of runs in one program; None for one without a leading axis
    devices: int  # that are used
    devices_for_runs: int  # that share out runs instead of generations
    generations: int
    checkpoint_every: int
    answer_episodes: int

    @property
    def run_key(self) -> jax.Array:
        """The run's key, or [M] of them."""
        if self.number is None:
            return jax.random.key(int(self.runs[0]["seed"]))
        return jax.vmap(jax.random.key)(np.array([run["seed"] for run in self.runs], np.uint32))

    @property
    def values(self) -> dict[str, np.ndarray]:
        """The swept numbers, float32 [M]."""
        names = [name for name in self.runs[0] if name != "seed"]
        return {n: np.array([run[n] for run in self.runs], np.float32) for n in names}


def plan(config: Any) -> Plan:
    """Return what a whole config says.

    Raises:
        ConfigError: one sentence that names the value and what is allowed.
    """
    require(
        config, "generations", "checkpoint_every", "answer_episodes", "seed", "seeds", "sweep",
        "deterministic", *_FOR_SEARCH,
    )  # fmt: skip
    try:
        if not isinstance(config["deterministic"], bool):
            raise TypeError(
                f"deterministic must be True or False, got {config['deterministic']!r}."
            )
        generations = _checks.integer("generations", config["generations"], 1, 2**31 - 1)
        checkpoint_every = _checks.integer("checkpoint_every", config["checkpoint_every"], 1)
        answer_episodes = _checks.integer("answer_episodes", config["answer_episodes"], 2)
        seeds = _checks.integer("seeds", config["seeds"], 1, 2**20)
        seed = _checks.integer("seed", config["seed"], 0, 2**32 - seeds)
        search = build(config)
        searcher = _searcher(config, search)
        sweep = _sweep(config, search, searcher)
        number = seeds * math.prod(len(values) for values in sweep.values())
        many = seeds > 1 or bool(sweep)
        if many and search.host:
            raise ValueError(
                "a controller on the host does one run at a time: seeds must be 1 and sweep empty, "
                f"got {number} runs."
            )
        shares = config["devices_share"]
        devices, _ = shared_out(config)
        devices_for_runs = devices if shares == "runs" else 1
        if shares == "learners" and not isinstance(searcher, Learners):
            raise ValueError(
                "devices_share learners needs a population of learners, got learners "
                f"{config['learners']['name']}."
            )
        if number % devices_for_runs:
            raise ValueError(
                f"devices that share out runs must divide their number, {number}, got "
                f"{devices_for_runs}."
            )
        return Plan(
            search=search,
            searcher=searcher,
            runs=tuple(
                {"seed": seed + k, **dict(zip(sweep, values, strict=True))}
                for values in itertools.product(*sweep.values())
                for k in range(seeds)
            ),
            number=number if many else None,
            devices=devices,
            devices_for_runs=devices_for_runs,
            generations=generations,
            checkpoint_every=checkpoint_every,
            answer_episodes=answer_episodes,
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error


def _searcher(config: Any, search: Search) -> Searcher:
    """Return what learns: the search alone, or what its section makes of it."""
    first, second = (_call(kind, config[kind]) for kind in ("rule", "second_rule"))
    if second.least and not first.least:
        name = config["second_rule"]["name"]
        raise ValueError(f"second_rule must be none without a rule before it, got {name}.")
    return _call(
        "learners",
        config["learners"],
        learner=search,
        rule=rules.compose(first, second) if second.least else first,
        devices=shared_out(config)[0] if config["devices_share"] == "learners" else 1,
    )


def _sweep(config: Any, search: Search, searcher: Searcher) -> dict[str, list[float]]:
    """Return the numbers to sweep over, {"strategy.noise_std": [...]}, each checked."""
    allowed = variable(searcher)
    sweep = {
        f"{section}.{name}": list(values) if isinstance(values, list | tuple) else [values]
        for section, fields in config["sweep"].items()
        for name, values in (fields.items() if hasattr(fields, "items") else [("", fields)])
    }
    for name, values in sweep.items():
        if name not in allowed:
            raise ValueError(
                f"sweep can vary {', '.join(allowed)}, got {name.rstrip('.')}: the rest is fixed "
                "when the program is compiled, and takes a run for each value."
            )
        for value in values:
            if hasattr(value, "items"):
                raise ValueError(
                    f"sweep.{name} must be a list of numbers, got fields of its own: "
                    f"{', '.join(value)}."
                )
            _checks.real(f"sweep.{name}", value)
        if not values or len(set(map(np.float32, values))) < len(values):
            raise ValueError(f"sweep.{name} must be different numbers in float32, got {values}.")
        section, field = name.split(".")
        for value in values:  # as the factory would refuse it
            changed = {**config[section], field: value}
            if section == "controller":
                _controller(changed, search.policy, search.strategy, search.objective)
            else:
                more = {"noise": strategies.gaussian()} if section == "strategy" else {}
                _call(section, changed, **more)
    return sweep


def shared_out(config: Any) -> tuple[int, int | None]:
    """Return how many devices of this machine a config uses, and V, its number of virtual shards.

    Where `devices` is None, what a run comes to must not depend on how many there are. So a CPU
    uses as many cores as divide V, and of other devices the first does whole generations, which V
    would only make smaller. Where devices share out runs or learners, nothing cuts generations.

    Raises:
        TypeError, ValueError: if a number is outside its range, or `devices` must be given.
    """
    shares = _checks.known("devices_share", config["devices_share"], SHARED_OUT)
    devices, shards = config["devices"], config["virtual_shards"]
    if devices is not None:
        devices = _checks.integer("devices", devices, 1)
        return devices, shards if shares == "candidates" else None
    if shares != "candidates":
        raise ValueError(
            f"devices must be given with devices_share {shares}: results depend on their number, "
            "by rounding."
        )
    if jax.process_count() > 1:
        raise ValueError(
            f"devices must be given in a run of several processes: all {jax.device_count()} of the "
            f"{jax.process_count()} processes."
        )
    if shards is None or jax.default_backend() != "cpu":
        return 1, None
    shards = _checks.integer("virtual_shards", shards, 1)
    there = min(usable_cores(), jax.device_count())
    return max(n for n in range(1, there + 1) if shards % n == 0), shards


def build(config: Any) -> Search:
    """Return the search that a config describes.

    Args:
        config: a ConfigDict, or a mapping such as the content of `config.json`.

    Raises:
        ConfigError: one sentence that names the value and what is allowed.
    """
    require(config, *_FOR_SEARCH)
    devices, shards = shared_out(config)
    task: Task = _call("task", config["task"])
    policy = _call("policy", config["policy"], obs_size=task.obs_size, action_size=task.action_size)
    if isinstance(trained := config["policy"].get("trained"), str):
        task = _knowing(task, trained)
    strategy = _call("strategy", config["strategy"], noise=_call("noise", config["noise"]))
    objective: Objective = _call("objective", config["objective"])
    return _call(
        "search",
        config["search"],
        policy=policy,
        task=task,
        strategy=strategy,
        controller=_controller(config["controller"], policy, strategy, objective),
        objective=objective,
        population=_call(
            "population",
            config["population"],
            # Devices that share out whole runs or learners do each generation alone.
            devices=devices if config["devices_share"] == "candidates" else 1,
            virtual_shards=shards,
        ),
    )


def _controller(given: Any, policy: Policy, strategy: Strategy, objective: Objective) -> Controller:
    """Return a controller, with what follows from the others filled in."""
    if isinstance(given, Mapping | ConfigDict):
        given = dict(given)
        if given.get("population_size", 0) is None:
            given["population_size"] = strategy.num_candidates
        if given.get("parameterisation") == "autoregressive":
            nodes = [n_out for n_in, n_out in policy.shapes for _ in range(n_in)]
            fit = isinstance(policy.space, Repeat) and policy.space.times == sum(nodes)
            by_node = nodes if fit and len(nodes) < MOST_STEPS else None
            given["parameterisation"] = controllers.autoregressive(groups=by_node)
    asked: dict[str, Any] = {"space": policy.space}
    if isinstance(given, dict) and given.get("name") == "pyglove":
        asked["num_candidates"] = strategy.num_candidates
        asked["num_objectives"] = objective.num_objectives
    return _call("controller", given, **asked)


def _knowing(task: Task, trained: str) -> Task:
    """Return the task that knows of its observations what a trained policy knew."""
    moments = trained_policy(trained).moments
    if not moments.count:
        return task
    try:
        if not isinstance(task, Episodes):
            raise ValueError("moments are of episodes, got a task that has none.")
        return task.knowing(moments)
    except ValueError as error:
        raise ConfigError(
            f"policy.trained {trained!r} cannot be trained further: {error}"
        ) from error


def require(config: Any, *names: str) -> None:
    """Raise ConfigError if a config lacks fields, `config.json` of another version say."""
    if missing := set(names) - set(config):
        raise ConfigError(f"the config has no {', '.join(sorted(missing))}.")


def describe(config: Any) -> str:
    """Return one line that says what is trained, on what, and how."""
    world = config.task.get("environment", config.task.name)
    what = f"{world}, {config.policy.name}, {config.strategy.name}, {config.controller.name}"
    if config.learners.name == "alone":
        return what
    if config.learners.name == "asynchronous":
        return f"{what}, workers of lags {', '.join(map(str, config.learners.lags))}"
    rules = [rule.name for rule in (config.rule, config.second_rule) if rule.name != "none"]
    return f"{what}, {config.learners.number} learners: {' and '.join(rules) or 'no rule'}"


def build_policy(config: Mapping[str, Any], obs_size: int, action_size: int) -> Policy:
    """Return only the policy of a config, without its task."""
    return _call("policy", config["policy"], obs_size=obs_size, action_size=action_size)


def _call(kind: str, given: Mapping[str, Any], **more: Any) -> Any:
    if not isinstance(given, Mapping | ConfigDict) or "name" not in given:
        raise ConfigError(f"{kind} must be a section with a name, got {given!r}.")
    # On the command line None is a word, where an argument may be one.
    arguments = {name: None if value == "None" else value for name, value in given.items()}
    function = _named(f"{kind}.name", arguments.pop("name"), FUNCTIONS[kind])
    for key, choices in CHOICES.items():
        if key in arguments and not callable(arguments[key]):
            arguments[key] = _named(f"{kind}.{key}", arguments[key], choices)
    allowed = [p for p in inspect.signature(function).parameters if p not in FROM_ELSEWHERE]
    if set(arguments) != set(allowed):
        raise ConfigError(
            f"{kind} {given['name']} takes {', '.join(allowed) or 'no arguments'}, but the config "
            f"has {', '.join(arguments) or 'none'}: a section's name cannot be overridden alone, "
            "start from another config file."
        )
    try:
        return function(**arguments, **more)
    except Exception as error:
        ours = isinstance(error, ImportError | TypeError | ValueError)
        text = str(error) if ours else f"{type(error).__name__}: {error}"
        raise ConfigError(f"{kind}: {text.rstrip('.')}{place_of(error)}.") from error


def place_of(error: Exception) -> str:
    """Return where in a user's own code an error comes from, "" if it comes from none.

    " (mine.py, line 7; the traceback is in FILE)", which is written.
    """
    ours = {Path(esenas_jax.__file__).parent, Path(__file__).parent}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        installed = "site-packages" in path.parts or path.is_relative_to(sys.base_prefix)
        if path.is_file() and not installed and not ours & {*path.parents}:
            with tempfile.NamedTemporaryFile(
                "w", prefix="esenas_traceback_", suffix=".txt", delete=False
            ) as file:
                file.write("".join(traceback.format_exception(error)))
            return f" ({path.name}, line {frame.lineno}; the traceback is in {file.name})"
    return ""


def _named(what: str, name: Any, known: Mapping[str, Any]) -> Any:
    if name not in known:
        raise ConfigError(f"{what} must be one of {', '.join(sorted(known))}, got {name!r}.")
    return known[name]


def _nearest(word: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(word, [k for k in known if k not in FROM_ELSEWHERE], n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


def _optional_type(function: Callable[..., Any], argument: str) -> type:
    hint = typing.get_type_hints(function)[argument]
    if isinstance(hint, types.UnionType):
        return next(t for t in typing.get_args(hint) if t is not type(None))
    return hint
