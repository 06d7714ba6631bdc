"""What the commands share: configs from files and flags, JAX's settings, errors in one sentence."""

import ast
import codecs
import difflib
import functools
import io
import operator
import os
import platform
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict

from experiments import hosts
from experiments.build import ConfigError, place_of, require
from experiments.checkpoints import CheckpointError
from experiments.cores import make_host_devices
from experiments.hosts import HostsError
from experiments.program_text import ProfileError
from experiments.workdir import WorkdirError


class DeviceError(Exception):
    """A device that is asked for and absent, in one sentence."""


class RunError(Exception):
    """A run that cannot go on, in one sentence."""


def run(main: Callable[[], None], *required: str) -> None:
    """Parse the command line and call `main`; what a user can mend ends in one sentence."""

    def guarded(argv: list[str]) -> None:
        if len(argv) > 1:
            sys.exit(f"error: unexpected arguments {' '.join(argv[1:])}.")
        for name in required:
            if flags.FLAGS[name].value is None:
                sys.exit(f"error: --{name} is missing (--help lists the flags).")
        print_in_any_encoding()
        # Orbax logs tracebacks of errors that it then raises, JAX which devices it did not find.
        logging.set_verbosity(logging.FATAL)
        configure_jax()
        try:
            if "config" in flags.FLAGS:
                set_xla_flags(flags.FLAGS.config)
            if "coordinator" in flags.FLAGS:
                hosts.join(*(getattr(flags.FLAGS, name) for name in HOST_FLAGS))
            if not hosts.joined():
                make_host_devices()
            find_devices()
            main()
        except (
            CheckpointError, ConfigError, DeviceError, HostsError, ProfileError, RunError,
            WorkdirError,
        ) as error:  # fmt: skip
            if hosts.joined():
                # What others brought may fail because a process was lost; what we refuse does not.
                hosts.leave(str(error), own=not isinstance(error, RunError))
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            if hosts.joined():
                os._exit(130)
            sys.exit(130)
        except BrokenPipeError:  # of what is printed: its reader has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except Exception:
            if hosts.joined():  # JAX would wait for the others, and they for this one
                hosts.leave(traceback.format_exc())
            raise

    app.run(guarded, flags_parser=parse_flags)


_PLAIN = {"±": "+-", "σ": "sigma", "×": "x", "→": "->"}


def print_in_any_encoding() -> None:
    """Let what is printed have characters that the terminal's encoding lacks: in plain letters."""

    def plain(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        lacking = error.object[error.start : error.end]
        return "".join(_PLAIN.get(character, "?") for character in lacking), error.end

    codecs.register_error("plain", plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")


HOST_FLAGS = ("coordinator", "num_processes", "process_id", "coordinator_timeout")


def define_host_flags() -> None:
    """Define the flags of a run of several processes."""
    flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT of process 0 in a run of several processes, or auto: ask the cluster.",
    )
    flags.DEFINE_integer("num_processes", None, "How many processes the run has.")
    flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
    flags.DEFINE_integer("coordinator_timeout", 120, "Seconds to wait for the others.")


def failure(what: str, error: Exception, more: str = "") -> RunError:
    """Return one sentence for an error in what the user brought: a task, a policy, a space."""
    lines = str(error).strip().splitlines() or [""]
    # What is raised on the host by a compiled program carries its traceback in its message.
    line = lines[-1] if "Traceback" in lines[0] else f"{type(error).__name__}: {lines[0]}"
    return RunError(f"{what} failed with {line.rstrip('.')}{more}.")


def xla_flags(config: Any) -> list[str]:
    """Return the flags of XLA that the promises of a config need.

    `virtual_shards`: XLA fuses programs for one device and for many differently, and on a CPU it
    contracts a product and a sum to one rounding within a fusion; AVX has no instruction for that.
    """
    require(config, "virtual_shards", "deterministic")
    out = []
    if config["virtual_shards"] and platform.machine() in ("x86_64", "AMD64"):
        out.append("--xla_cpu_max_isa=AVX")
    if config["deterministic"]:
        out += [
            "--xla_gpu_deterministic_ops=true",
            "--xla_gpu_exclude_nondeterministic_ops=true",
            "--xla_gpu_autotune_level=0",  # the fastest of several algorithms changes by the day
        ]
    return out


def set_xla_flags(config: Any) -> None:
    """Set them; to be called before JAX looks for devices."""
    old = os.environ.get("XLA_FLAGS", "").split()
    new = [flag for flag in xla_flags(config) if flag not in old]
    if new:
        os.environ["XLA_FLAGS"] = " ".join([*old, *new])


def configure_jax() -> None:
    """Make every platform multiply in float32, and keep compiled programs in the user's cache.

    TF32, the default of recent GPUs, changes what is learnt. JAX_DEFAULT_MATMUL_PRECISION and
    JAX_COMPILATION_CACHE_DIR are obeyed where they are set.
    """
    if "JAX_DEFAULT_MATMUL_PRECISION" not in os.environ:
        jax.config.update("jax_default_matmul_precision", "highest")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(Path(base) / "esenas_jax" / "jax"))


def find_devices() -> None:
    """Let JAX find its devices, which is when it finds out that a backend is absent.

    Raises:
        DeviceError: if JAX_PLATFORMS names a backend that does not start here.
    """
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:
        named = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
        if not named:
            raise
        line = (str(error).splitlines() or [""])[0].partition(" (set JAX_PLATFORMS")[0].rstrip(".")
        line = line or "no NVIDIA GPU is visible"  # what JAX asserts for cuda, without a word
        raise DeviceError(
            f"JAX_PLATFORMS={named} asks for a backend that does not start here ({line}): mend "
            "that, install JAX for it if it is missing (make train EXTRAS=cuda12, cuda13 or tpu), "
            "or unset JAX_PLATFORMS."
        ) from error


def parse_flags(argv: list[str]) -> list[str]:
    """Parse the command line; a config, field or value that cannot be ends in one sentence."""
    argv = ["--help" if argument == "-h" else argument for argument in argv]
    words = [argument.lstrip("-") if argument.startswith("-") else "" for argument in argv]
    fields = [w.partition("=")[0].removeprefix("config.") for w in words if w.startswith("config.")]
    # absl takes --config=FILE as well as --config FILE.
    files = [w.partition("=")[2] for w in words if w.startswith("config=")]
    files += [argv[i + 1] for i, w in enumerate(words[:-1]) if w == "config"]
    if "sweep" in fields:
        sys.exit(
            "error: a sweep names what it varies, --config.sweep.strategy.noise_std=[0.1,0.2]."
        )
    if files:
        config = load_config(files[-1]).to_dict()
        known = [name for name, _ in _leaves(config)]
        for field in fields:
            if isinstance(config.get(field), dict) and config[field]:
                own = ", ".join(f"{field}.{name}" for name in config[field])
                sys.exit(
                    f"error: {field} is a section of the config: set one of {own}, or start from "
                    "another config file."
                )
            if field not in known and not field.startswith("sweep."):
                near = difflib.get_close_matches(field, known, n=1, cutoff=0.0)[0]
                sys.exit(f"error: the config has no field {field}; the nearest is {near}.")
    argv, sweep, unset = _take_apart(argv, words)
    command, sys.argv = sys.argv, argv  # where the config's flags look for overrides
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(f"error: {_flag_error(error)}")
    finally:
        sys.argv = command
    for name, values in sweep.items():
        _add_to_sweep(flags.FLAGS.config, name, values)
    for name in unset:
        *parents, last = name.split(".")
        section = functools.reduce(operator.getitem, parents, flags.FLAGS.config)
        with section.ignore_type():
            section[last] = None
    return rest


def _take_apart(argv: list[str], words: list[str]) -> tuple[list[str], dict[str, str], list[str]]:
    """Return the arguments without those that the config's own flags cannot parse, and these.

    They are the values of a sweep, by name, whatever the name is, and the fields set to None.
    """
    rest, sweep, unset, following = [], {}, [], iter([*argv[1:], ""])
    skip = False
    for argument, word, after in zip(argv, words, following, strict=True):
        name, equals, value = word.removeprefix("config.").partition("=")
        value = value if equals else after
        if skip:
            skip = False
        elif word.startswith("config.sweep."):
            sweep[name.removeprefix("sweep.")] = value
            skip = not equals
        elif word.startswith("config.") and value == "None":
            unset.append(name)
            skip = not equals
        else:
            rest.append(argument)
    return rest, sweep, unset


def _add_to_sweep(config: Any, name: str, text: str) -> None:
    """Put the numbers of --config.sweep.NAME=[...] into the config."""
    try:
        values = ast.literal_eval(text)
        values = [float(x) for x in (values if isinstance(values, list | tuple) else [values])]
    except (ValueError, SyntaxError, TypeError):
        sys.exit(f"error: sweep.{name} must be a list of numbers, [0.1,0.2] say, got {text!r}.")
    with config.unlocked(), config.ignore_type():
        *parents, last = ("sweep", *name.split("."))
        for part in parents:
            if not isinstance(config.get(part), ConfigDict):
                config[part] = ConfigDict()
            config = config[part]
        config[last] = values


_WANTED = {
    "invalid literal for int()": "an integer",
    "could not convert string to float": "a number",
    "Non-boolean argument": "true or false",
}


def _flag_error(error: flags.Error) -> str:
    text = " ".join(str(error).split())
    flag, _, why = text.removeprefix("flag --").partition(": ")
    for words, wanted in _WANTED.items():
        if words in why:
            name, _, value = flag.partition("=")
            return f"{name.removeprefix('config.')} must be {wanted}, got {value!r}."
    return f"{text.rstrip('.')} (--help lists the flags)."


def load_config(file: str) -> ConfigDict:
    """Return the config "FILE" or "FILE:VARIANT", without overrides; exit if it cannot be had."""
    path, _, name = file.partition(":")
    try:
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no file {path!r}")
        if Path(path).suffix != ".py":
            raise ValueError("it must be a Python file that defines get_config")
        found = runpy.run_path(path)
        if "get_config" not in found:
            raise ValueError("it defines no get_config")
        return found["get_config"](name or None)
    except Exception as error:  # of the user's own file
        line = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        place = place_of(error) if kind else ""  # else a config refuses what it was given
        sys.exit(f"error: cannot load the config {file}: {kind}{line}{place}.")


def _leaves(section: dict[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{at}{name}.")
        else:
            yield f"{at}{name}", value
