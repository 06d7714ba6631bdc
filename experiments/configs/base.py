"""What every config has; the others add a task, a policy, a strategy and a controller."""

from collections.abc import Iterable

from ml_collections import ConfigDict, config_dict

from experiments.build import section


def base() -> ConfigDict:
    """Return the part of a config that most runs need not touch."""
    config = ConfigDict()
    config.seed = 0  # of the run's one key
    config.seeds = 1  # that many runs in one program, of seeds seed, seed + 1, ...
    config.sweep = ConfigDict()  # and each of them with all of these numbers
    config.generations = 100
    config.answer_episodes = 256  # to choose the answer with, and as many again to report it
    config.checkpoint_every = 50  # generations
    # How many devices to use, the first ones that JAX finds. None is what suits the machine: on a
    # CPU a core each, as many as divide `virtual_shards`; else one, which does a whole generation.
    config.devices = config_dict.placeholder(int)
    config.devices_share = "candidates"  # of each generation, or "runs", or "learners"
    # V, the pieces of a generation: the same bits on any number of devices that divides V.
    config.virtual_shards = config_dict.placeholder(int)
    config.deterministic = False  # on GPUs: only operations that give the same bits every time
    config.noise = section("noise")
    config.objective = section("objective")
    config.population = section("population")
    config.search = section("search")
    config.learners = section("learners")  # one alone
    config.rule = section("rule")  # of a population of learners: none
    config.second_rule = section("second_rule")  # that follows it: none
    return config


def twin(what: str, name: str | None, known: Iterable[str], default: str) -> tuple[str, str | None]:
    """Return which of a file's twins stands behind a colon, and the variant of it.

    Args:
        what: they differ in, for the error.
        name: "NAME", "NAME,smoke", "smoke" (of the default), or None.
        known: the names.
        default: one of them.

    Raises:
        ValueError: if there is no such twin.
    """
    twin, _, short = (name or default).partition(",")
    if twin == "smoke" and not short:
        twin, short = default, "smoke"
    if twin not in known:
        raise ValueError(f"the {what} must be one of {', '.join(known)}, got {twin!r}.")
    return twin, short or None


def variant(config: ConfigDict, name: str | None) -> ConfigDict:
    """Return the variant of a config that stands behind a colon: none, or `:smoke`.

    `:smoke` runs three generations, to see that everything works; a config whose generations take
    minutes makes them smaller.

    Raises:
        ValueError: if there is no such variant.
    """
    if name not in (None, "smoke"):
        raise ValueError(f"a config's variant must be smoke, got {name!r}.")
    if name == "smoke":
        config.generations = 3
        config.answer_episodes = 16
    return config
