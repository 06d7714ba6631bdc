"""Pendulum and continuous MountainCar, to Gymnasium's definitions.

The environments that the released ES-ENAS wraps, small enough to compile in a second. Their time
limits in Gymnasium 1.x (200 steps of `Pendulum-v1`, 999 of `MountainCarContinuous-v0`) are the
task's `horizon`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from esenas_jax.tasks.environment import Environment, Transition
from esenas_jax.types import Array, Key


class PendulumState(NamedTuple):
    """Angle from upright in rad and angular velocity in rad/s, float32 []."""

    theta: Array
    theta_dot: Array


def pendulum() -> Environment:
    """Return `Pendulum-v1`: swing up and hold; cost theta^2 + 0.1 theta_dot^2 + 0.001 torque^2.

    Observation: cos(theta), sin(theta), theta_dot. Action 1 is the full torque of 2 N m.
    """
    max_speed, max_torque, dt, gravity, mass, length = 8.0, 2.0, 0.05, 10.0, 1.0, 1.0

    def observe(state: PendulumState) -> Array:
        return jnp.stack([jnp.cos(state.theta), jnp.sin(state.theta), state.theta_dot])

    def reset(key: Key) -> tuple[PendulumState, Array]:
        high = jnp.array([jnp.pi, 1.0], jnp.float32)
        theta, theta_dot = jax.random.uniform(key, (2,), jnp.float32, -high, high)
        state = PendulumState(theta, theta_dot)
        return state, observe(state)

    def step(state: PendulumState, action: Array) -> tuple[PendulumState, Transition]:
        torque = jnp.clip(max_torque * action[0], -max_torque, max_torque)
        angle = (state.theta + jnp.pi) % (2 * jnp.pi) - jnp.pi
        cost = angle**2 + 0.1 * state.theta_dot**2 + 0.001 * torque**2
        acceleration = (
            3 * gravity / (2 * length) * jnp.sin(state.theta) + 3.0 / (mass * length**2) * torque
        )
        speed = jnp.clip(state.theta_dot + acceleration * dt, -max_speed, max_speed)
        new = PendulumState(state.theta + speed * dt, speed)
        zero = jnp.zeros((), jnp.float32)
        return new, Transition(observe(new), -cost, zero, jnp.zeros((), bool))

    return Environment(obs_size=3, action_size=1, reset=reset, step=step, endless=True)


class MountainCarState(NamedTuple):
    """Position and velocity, float32 []."""

    position: Array
    velocity: Array


def mountain_car() -> Environment:
    """Return `MountainCarContinuous-v0`: 100 for reaching the flag, minus 0.1 force^2 a step.

    Observation: position in [-1.2, 0.6], velocity in [-0.07, 0.07]. Action 1 is the full force.
    The episode is done at position 0.45. As in Gymnasium, the cost is of the action as it came,
    the force is clipped.
    """
    low, high, max_speed, goal, power = -1.2, 0.6, 0.07, 0.45, 0.0015

    def observe(state: MountainCarState) -> Array:
        return jnp.stack([state.position, state.velocity])

    def reset(key: Key) -> tuple[MountainCarState, Array]:
        position = jax.random.uniform(key, (), jnp.float32, -0.6, -0.4)
        state = MountainCarState(position, jnp.zeros((), jnp.float32))
        return state, observe(state)

    def step(state: MountainCarState, action: Array) -> tuple[MountainCarState, Transition]:
        force = jnp.clip(action[0], -1.0, 1.0)
        velocity = state.velocity + force * power - 0.0025 * jnp.cos(3 * state.position)
        velocity = jnp.clip(velocity, -max_speed, max_speed)
        position = jnp.clip(state.position + velocity, low, high)
        velocity = jnp.where((position == low) & (velocity < 0), 0.0, velocity)
        done = (position >= goal) & (velocity >= 0.0)
        reward = jnp.where(done, 100.0, 0.0) - 0.1 * action[0] ** 2
        new = MountainCarState(position, velocity)
        return new, Transition(observe(new), reward, jnp.zeros((), jnp.float32), done)

    return Environment(obs_size=2, action_size=1, reset=reset, step=step)
