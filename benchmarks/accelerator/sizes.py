"""How much is measured: for an accelerator in eight minutes, or for a CPU in less than five."""

from typing import NamedTuple


class Sizes(NamedTuple):
    """The numbers that differ between the two."""

    world: str  # the Brax environment that is measured first, and most; on the spring backend
    lanes: tuple[int, ...]  # numbers of lanes that it is tried with, with two candidates a lane
    horizon: int  # environment steps
    repeats: int  # of a timing; pairs, where two sides alternate
    others: bool  # whether other environments, mjx and the memory are measured
    candidates: int  # of the other environments
    candidates_mjx: int
    compared: tuple[str, int]  # a Brax environment and worlds: ten steps, beside the CPU's
    sphere: tuple[int, ...]  # candidates on a sphere
    copied: int  # float32 numbers that a copy of memory moves
    pendulum: tuple[int, int]  # candidates, lanes
    seeds: tuple[int, ...]  # in one program
    seeds_world: str  # "pendulum", or a Brax environment
    seeds_candidates: int  # of each seed
    largest: tuple[int, ...]  # populations that are tried, all of them at once
    devices: tuple[int, ...]  # numbers of devices
    devices_candidates: int  # of each device, or of all
    deterministic: tuple[str, int, int]  # world, candidates, horizon of the child processes


FULL = Sizes(
    world="ant",
    lanes=(4096, 16384, 32768, 65536),
    horizon=128,
    repeats=5,
    others=True,
    candidates=16384,
    candidates_mjx=8192,
    compared=("hopper", 64),
    sphere=(1024, 16384, 262_144),
    copied=2**28,
    pendulum=(2**20, 65536),
    seeds=(1, 10, 100),
    seeds_world="hopper",
    seeds_candidates=512,
    largest=(2**16, 2**18, 2**20),
    devices=(1, 2, 4, 8),
    devices_candidates=8192,
    deterministic=("hopper", 1024, 128),
)
QUICK = Sizes(
    world="inverted_pendulum",
    lanes=(32,),
    horizon=32,
    repeats=5,
    others=False,
    candidates=16384,
    candidates_mjx=8192,
    compared=("inverted_pendulum", 16),
    sphere=(32,),
    copied=2**22,
    pendulum=(1024, 128),
    seeds=(1, 10, 100),
    seeds_world="pendulum",
    seeds_candidates=32,
    largest=(1024,),
    devices=(1, 2, 4, 8),
    devices_candidates=256,
    deterministic=("pendulum", 256, 128),
)
