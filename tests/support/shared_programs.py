"""Runs of one process that share what they compile.

A run of seconds compiles for seconds, and a test of how runs go on needs two or three of them.
While `shared_programs` is entered, `experiments.train.train` compiles a generation once for all
runs of one config, and chooses the answer to a state once. Everything else is done anew:
checkpoints, metrics, generations, and pictures if a test wants them. Products are as precise as
the command makes them, so that commands find its programs in the compilation cache.
"""

import contextlib
import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import record, train


@contextlib.contextmanager
def shared_programs(pictures: bool = False, kept: tuple[dict, dict] | None = None):
    """Share programs and answers, also with earlier contexts that had the same `kept`."""
    compile_anew, choose_anew = train.Run._compile, train.Run._choose
    programs, answers = kept or ({}, {})

    def compiled(run):
        if run.record is None or run.tracing.left:
            return compile_anew(run)
        key = _key(run)
        if key not in programs:
            programs[key] = compile_anew(run)
        first, program = programs[key]
        return jax.tree.map(jnp.copy, first), program  # a program uses up the state that it gets

    def chosen(run, state):
        if run.record is None:
            return choose_anew(run, state)
        key = _key(run), _digest(state)
        if key not in answers:
            answers[key] = jax.device_get(choose_anew(run, state))
        return answers[key]

    with pytest.MonkeyPatch.context() as patch, jax.default_matmul_precision("highest"):
        patch.setattr(train.Run, "_compile", compiled)
        patch.setattr(train.Run, "_choose", chosen)
        if not pictures:
            patch.setattr(record, "_pictures", lambda *_: None)
        yield


def _key(run) -> str:
    """Return the config, without what is not compiled."""
    config = run.record.config.to_dict()
    for name in ("generations", "checkpoint_every"):
        del config[name]
    config["controller"].pop("algorithm", None)  # of PyGlove's, on the host
    return json.dumps(config, sort_keys=True)


def _digest(state) -> bytes:
    leaves = [np.asarray(x) for x in jax.tree.leaves(state)]
    return hashlib.sha256(b"".join(x.tobytes() for x in leaves)).digest()
