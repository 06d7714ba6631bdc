"""Where the time goes: by texts and traces written by hand, and by those of lopsided searches."""

import contextlib
import functools
import time

import jax
import jax.numpy as jnp
import pytest
from jax.profiler import ProfileData

from esenas_jax import Population, controllers, es_enas, policies, strategies, tasks
from esenas_jax.types import Part
from experiments.profiling import (
    HOST,
    NAMES,
    Profile,
    Profiler,
    named_program,
    share_out,
    where_time_went,
)
from experiments.program_text import OTHER, PARTS, ProfileError, Program, read_program

KEY = jax.random.key(0)

# --- the program ----------------------------------------------------------------------------------

TEXT = """\
HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[4]{0})->f32[4]{0}}

%add_f (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y), metadata={op_name="reduce_sum"}
}

%fused (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  %sin.1 = f32[4]{0} sine(%p), metadata={op_name="jit(step)/vmap(esenas_jax.physics)/sin"}
  %cos.1 = f32[4]{0} cosine(%sin.1), metadata={op_name="jit(step)/esenas_jax.physics/cos"}
  ROOT %neg.1 = f32[4]{0} negate(%cos.1), metadata={op_name="jit(step)/neg"}
}

%tied (q: f32[4]) -> f32[4] {
  %q = f32[4]{0} parameter(0)
  %exp.1 = f32[4]{0} exponential(%q), metadata={op_name="jit(step)/esenas_jax.policy/exp"}
  %max.1 = f32[4]{0} maximum(%exp.1, %q), metadata={op_name="reduce_max"}
  %max.2 = f32[4]{0} maximum(%max.1, %q), metadata={op_name="reduce_max"}
  ROOT %log.1 = f32[4]{0} log(%exp.1), metadata={op_name="jit(step)/esenas_jax.update/log"}
}

%body (carry: (s32[], /*index=1*/f32[4])) -> (s32[], f32[4]) {
  %carry = (s32[], /*index=1*/f32[4]{0}) parameter(0)
  %item = f32[4]{0} get-tuple-element(%carry), index=1
  %dot.1 = f32[4]{0} dot(%item, %item), lhs_contracting_dims={}
  %fusion.1 = f32[4]{0} fusion(%dot.1), kind=kLoop, calls=%fused, metadata={op_name="jit(step)/neg"}
  %copy.1 = f32[4]{0} copy(%fusion.1)
  %one = s32[] get-tuple-element(%carry), index=0
  ROOT %both = (s32[], f32[4]{0}) tuple(%one, %copy.1)
}

%small (r: f32[4]) -> f32[4] {
  %r = f32[4]{0} parameter(0)
  ROOT %tan.1 = f32[4]{0} tan(%r), metadata={op_name="jit(step)/esenas_jax.proposing/tan"}
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[4]{0}) tuple(%zero, %a)
  %while.1 = (s32[], /*index=1*/f32[4]{0}) while(%start), condition=%cond, body=%body
  %got = f32[4]{0} get-tuple-element(%while.1), index=1
  %call.1 = f32[4]{0} call(%got), to_apply=%small, frontend_attributes={xla_cpu_small_call="true"}
  %call.2 = f32[4]{0} call(%got), to_apply=%small
  %both.1 = f32[4]{0} fusion(%call.1), calls=%tied, metadata={op_name="jit(s)/esenas_jax.update/l"}
  %inner = f32[4]{0} abs(%both.1), metadata={op_name="esenas_jax.physics/esenas_jax.policy/abs"}
  %total = f32[] reduce(%inner, %zero), to_apply=%add_f, metadata={op_name="jit(step)/reduce_sum"}
  ROOT %lost = f32[4]{0} custom-call(), custom_call_target="lost"
}
"""


@pytest.mark.parametrize(
    ("operation", "part"),
    [
        ("fusion.1", "physics"),  # two of three, though its own name says none
        ("both.1", "update"),  # one of each: the root's; those within a reduction do not count
        ("inner", "policy"),  # the inner one of two
        ("total", "other"),  # its own name, not the function's that it applies
        ("call.1", "proposing"),
        ("copy.1", "physics"),  # from what it copies: the tuple that it goes to says nothing
        ("dot.1", "physics"),  # from what uses it
        ("item", "physics"),  # and on
    ],
)
def test_an_operation_is_of_the_part_that_most_of_it_is(operation, part):
    assert read_program(TEXT).parts[operation] == part


def test_what_is_not_known_is_not_made_up():
    program = read_program(TEXT)
    assert program.module == "jit_step"
    assert not {"lost", "a", "both", "one", "start"} & set(program.parts)


def test_only_what_runs_others_with_a_trace_of_their_own_is_a_loop():
    assert read_program(TEXT).loops == {"while.1", "call.2"}


def test_a_program_without_names_is_refused():
    with pytest.raises(ProfileError, match="does not name the parts"):
        read_program(TEXT.replace("esenas_jax.", ""))


# --- sharing out ----------------------------------------------------------------------------------


def nanoseconds(shared: dict[str, float]) -> dict[str, float]:
    assert set(shared) == set(NAMES)
    return {name: pytest.approx(1e9 * x) for name, x in shared.items() if x}


def test_every_moment_is_given_to_what_runs_or_starts_next_or_else_to_the_host():
    shared = share_out(
        (0, 100),
        [(10, 90), (20, 40)],
        [(20, 40, "physics"), (30, 50, "policy"), (60, 80, "update")],
    )
    assert nanoseconds(shared) == {
        "physics": 10 + 10 + 10 / 2,  # waiting for it, alone, with another
        "policy": 10 / 2 + 10,
        "update": 10 + 20,
        "other": 10,  # after the last operation
        "host": 10 + 10,
    }


def test_without_a_running_program_a_gap_is_the_hosts():
    shared = share_out((0, 100), [], [(-5, 40, "physics"), (60, 70, "physics")])
    assert nanoseconds(shared) == {"physics": 50, "host": 50}


def test_a_moment_is_shared_equally_by_operations_not_by_parts():
    shared = share_out((0, 30), [], [(0, 30, "physics"), (0, 30, "physics"), (0, 30, "update")])
    assert nanoseconds(shared) == {"physics": 20, "update": 10}


def test_the_table_says_shares_and_times_of_a_generation():
    profile = Profile({"physics": 0.6, "other": 0.2, "host": 1.2}, generations=2)
    lines = [line.split() for line in profile.table(0.5).splitlines()]
    assert lines == [
        ["Time:", "host", "60.0%", "600", "ms"],
        ["Time:", "physics", "30.0%", "300", "ms"],
        ["Time:", "other", "10.0%", "100", "ms"],
        ["Time:", "a", "generation", "100.0%", "1000", "ms,", "500", "ms", "untraced"],
    ]


# --- traces ---------------------------------------------------------------------------------------

# A window of 100 us on a thread that also launches an operation; kernels of 30 us by the name of
# the operation, 20 us by its own, 10 us of another program, 5 us of a copy; and a summary of it.
GPU = """
planes {
  name: "/host:CPU"
  lines {
    name: "python"
    events { metadata_id: 1 offset_ps: 0 duration_ps: 100000000 }
    events {
      metadata_id: 2 offset_ps: 1000000 duration_ps: 90000000
      stats { metadata_id: 1 str_value: "loop.1" }
      stats { metadata_id: 2 str_value: "jit_step" }
    }
  }
  event_metadata { key: 1 value { id: 1 name: "esenas_jax.traced" } }
  event_metadata { key: 2 value { id: 2 name: "loop.1" } }
  stat_metadata { key: 1 value { id: 1 name: "hlo_op" } }
  stat_metadata { key: 2 value { id: 2 name: "hlo_module" } }
}
planes {
  name: "/device:GPU:0"
  lines { name: "Stream #7(Compute)" EVENTS }
  lines {
    name: "XLA Ops"
    events {
      metadata_id: 1 offset_ps: 0 duration_ps: 100000000
      stats { metadata_id: 1 str_value: "loop.1" }
      stats { metadata_id: 2 str_value: "jit_step" }
    }
  }
  event_metadata { key: 1 value { id: 1 name: "loop_1" } }
  event_metadata { key: 2 value { id: 2 name: "gemm" } }
  event_metadata { key: 3 value { id: 3 name: "MemcpyD2D" } }
  stat_metadata { key: 1 value { id: 1 name: "hlo_op" } }
  stat_metadata { key: 2 value { id: 2 name: "hlo_module" } }
}
""".replace(
    "EVENTS",
    """
    events {
      metadata_id: 2 offset_ps: 10000000 duration_ps: 30000000
      stats { metadata_id: 1 str_value: "dot.3" }
      stats { metadata_id: 2 str_value: "jit_step" }
    }
    events {
      metadata_id: 1 offset_ps: 40000000 duration_ps: 20000000
      stats { metadata_id: 1 str_value: "command_buffer" }
      stats { metadata_id: 2 str_value: "jit_step" }
    }
    events {
      metadata_id: 1 offset_ps: 60000000 duration_ps: 10000000
      stats { metadata_id: 1 str_value: "loop.1" }
      stats { metadata_id: 2 str_value: "jit_another" }
    }
    events { metadata_id: 3 offset_ps: 70000000 duration_ps: 5000000 }
""",
)
PROGRAM = Program("jit_step", {"dot.3": "policy", "loop.1": "physics"}, frozenset())


def written(folder, text):
    folder.mkdir()
    trace = ProfileData.text_proto_to_serialized_xspace(text)
    (folder / "host.xplane.pb").write_bytes(trace)
    return folder


@pytest.mark.short
def test_a_gpus_streams_are_read_once_and_by_operation_or_kernel(tmp_path):
    shared = where_time_went(written(tmp_path / "trace", GPU), PROGRAM)
    assert nanoseconds(shared) == {
        "policy": 30_000,
        "physics": 20_000,
        "other": 15_000,
        "host": 35_000,
    }


def test_a_trace_that_does_not_tell_is_refused(tmp_path):
    with pytest.raises(ProfileError, match="there is no trace"):
        where_time_went(tmp_path, PROGRAM)
    with pytest.raises(ProfileError, match="no operation of jit_step"):
        where_time_went(written(tmp_path / "a", GPU.replace("jit_step", "jit_eval")), PROGRAM)
    with pytest.raises(ProfileError, match="event that spans"):
        where_time_went(written(tmp_path / "b", GPU.replace("traced", "lost")), PROGRAM)


# --- searches -------------------------------------------------------------------------------------


def burden(x, times):
    """Return about nothing, after so much work on x [3]."""
    matrix = jnp.full((160, 160), 0.01, jnp.float32) + jnp.sum(x)
    y = jax.lax.fori_loop(0, times, lambda _, m: jnp.tanh(m @ matrix), matrix)
    return jnp.sum(y) * 1e-9


def search(work: dict | None = None):
    """Pendulum; `work` says how much more some parts of it are to do, a traced number of each."""
    work = work or {}
    environment = tasks.pendulum()
    policy = policies.edge_pruned(3, (), 1, num_edges=2)
    strategy = strategies.ars(2, 1)
    step, apply, update = environment.step, policy.apply, strategy.update
    if "physics" in work:

        def slow_step(state, action):
            state, seen = step(state, action)
            return state, seen._replace(obs=seen.obs + burden(seen.obs, work["physics"]))

        environment = environment._replace(step=slow_step)
    if "policy" in work:
        policy = policy._replace(
            apply=lambda net, obs: apply(net, obs) + burden(obs, work["policy"])
        )
    if "update" in work:

        def slow_update(key, state, fitness, *rest):
            return update(key, state, fitness + burden(fitness[:3], work["update"]), *rest)

        strategy = strategy._replace(update=slow_update)
    return es_enas(
        policy,
        tasks.episodes(environment, horizon=8),
        strategy,
        controllers.random(policy.space),
        population=Population(lanes=2),
    )


WORK = {"physics": 10, "policy": 10, "update": 1000}


@functools.cache
def compiled():
    """A state, and the program of a generation: one, whatever part is heavy."""
    state = jax.jit(search().init)(KEY)
    with named_program():
        step = jax.jit(lambda key, state, work: search(work).step(key, state))
        step = step.lower(KEY, state, WORK).compile()
    return state, step


def working(heavy: str) -> dict[str, int]:
    return {name: amount if name == heavy else 0 for name, amount in WORK.items()}


@pytest.mark.parametrize(
    "heavy", ["physics", *(pytest.param(n, marks=pytest.mark.slow) for n in ("policy", "update"))]
)
def test_the_part_that_does_the_work_is_the_one_named(heavy, tmp_path):
    state, step = compiled()
    profiler = Profiler(tmp_path)
    for k in range(2):
        with profiler.tracing(f"generation_{k}"):
            state, _ = jax.block_until_ready(step(KEY, state, working(heavy)))
    seconds = profiler.profile(step.as_text()).seconds
    assert seconds[heavy] > 0.7 * sum(seconds.values()), seconds


def test_parts_add_up_to_the_wall_time_and_waiting_python_is_the_host(tmp_path):
    state, step = compiled()
    profiler = Profiler(tmp_path)
    walls = []
    for k in range(2):
        with profiler.tracing(f"generation_{k}"):
            started = time.perf_counter()
            state, _ = jax.block_until_ready(step(KEY, state, working("physics")))
            time.sleep(0.1)
            walls.append(time.perf_counter() - started)
    profile = profiler.profile(step.as_text())
    assert set(profile.seconds) == set(NAMES)
    assert profile.generations == 2
    # The event that spans a generation begins and ends just outside the clock's two readings.
    assert sum(walls) - 1e-3 < 2 * profile.wall < sum(walls) + 0.1
    assert 0.2 <= profile.seconds[HOST] < sum(walls)
    assert all(profile.seconds[name] > 0 for name in (*PARTS, OTHER))


def test_a_trace_that_fails_is_ended_and_not_counted(tmp_path):
    profiler = Profiler(tmp_path)
    for _ in range(2):  # a second trace could not start while the first is running
        with pytest.raises(ZeroDivisionError), profiler.tracing("failed"):
            _ = 1 / 0
    assert not profiler.traces


# --- names ----------------------------------------------------------------------------------------


def lower(made):
    return jax.jit(made.step).lower(KEY, jax.eval_shape(made.init, KEY))


@functools.cache
def lowered(make):
    return lower(make())


def single_shot():
    task = tasks.polynomial_regression(jax.random.key(1))
    policy = policies.edge_pruned(5, (), 1, num_edges=5)
    return es_enas(policy, task, strategies.ars(4, 1), controllers.random(policy.space))


@pytest.mark.parametrize("make", [search, single_shot])
def test_every_part_of_a_generation_is_named(make):
    text = lowered(make).as_text(debug_info=True)
    assert [part for part in Part if part not in text] == []


@pytest.mark.parametrize("make", [search, single_shot])
def test_names_change_no_operation(make, monkeypatch):
    named = lowered(make).as_text()

    class Nameless(contextlib.ContextDecorator, contextlib.nullcontext):
        pass

    monkeypatch.setattr(jax, "named_scope", Nameless)
    nameless = lower(make())
    assert not [part for part in Part if part in nameless.as_text(debug_info=True)]
    assert nameless.as_text() == named


def test_the_compilation_cache_looks_at_names_only_when_asked_to():
    setting = "jax_compilation_cache_include_metadata_in_key"
    assert not getattr(jax.config, setting)
    with named_program():
        assert getattr(jax.config, setting)
    assert not getattr(jax.config, setting)
