"""What a compiled program's text says of its operations: of which part of a generation they are."""

import collections
import re
from collections.abc import Iterable
from typing import NamedTuple

from esenas_jax.types import Part

OTHER = "other"
PARTS = tuple(part.name.lower() for part in Part)


class ProfileError(Exception):
    """A program or a trace that does not say where the time went."""


class Program(NamedTuple):
    """What is known of a compiled program's operations."""

    module: str  # its name
    parts: dict[str, str]  # operation -> one of `PARTS` or `OTHER`
    loops: frozenset[str]  # operations that only run others


class _Operation(NamedTuple):
    name: str
    opcode: str
    part: str | None  # None: the text does not say
    operands: list[str]
    called: list[str]  # the computations that it runs
    loop: bool


_MODULE = re.compile(r"HloModule ([^\s,]+)")
_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
# %name = type opcode(%operand, %operand), more; a type holds no " word(".
_OPERATION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = .*? ([a-z][\w\-]*)\(([^)]*)\)(.*)")
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_PART = re.compile("|".join(re.escape(part) for part in Part))

_INLINED = ("fusion", "call", "while", "conditional")  # what they run is what they do
_PLUMBING = ("tuple", "parameter", "while", "conditional")  # tie together what is not related


def read_program(text: str) -> Program:
    """Return what the text of a compiled program, `compiled.as_text()`, says of its operations.

    A fused operation is of the part that most of the fused ones are of; of equal ones its root's.
    One that the text says nothing of (XLA makes copies, and rewrites products) is of the part of
    the operations that use it or, if that is not known either, of those that it uses.

    Raises:
        ProfileError: if the text names no part.
    """
    module = _MODULE.search(text)
    if not module or not _PART.search(text):
        raise ProfileError("the compiled program does not name the parts of a generation.")
    computations = _computations(text.splitlines())
    parts: dict[str, str] = {}
    for operations in computations.values():
        known = {}
        for operation in operations:
            if votes := _votes(operation, computations):
                known[operation.name] = _most(votes, operation.part)
        parts |= _with_neighbours(operations, known)
    loops = frozenset(x.name for body in computations.values() for x in body if x.loop)
    return Program(module[1], parts, loops)


def _computations(lines: Iterable[str]) -> dict[str, list[_Operation]]:
    computations: dict[str, list[_Operation]] = {}
    body: list[_Operation] = []
    for line in lines:
        if found := _COMPUTATION.match(line):
            body = computations.setdefault(found[1], [])
        elif found := _OPERATION.match(line):
            name, opcode, operands, more = found.groups()
            # A small call is compiled to one piece of a CPU's code; what it runs leaves no trace.
            loop = opcode in ("while", "conditional") or (
                opcode == "call" and "xla_cpu_small_call" not in more
            )
            body.append(
                _Operation(
                    name,
                    opcode,
                    _named(more),
                    _OPERAND.findall(operands),
                    _CALLED.findall(more),
                    loop,
                )
            )
    return computations


def _named(metadata: str) -> str | None:
    found = _OP_NAME.search(metadata)
    # A name without a path is of the inside of a reduction, a sort or a scatter.
    if not found or "/" not in found[1]:
        return None
    names = _PART.findall(found[1])
    return Part(names[-1]).name.lower() if names else OTHER


def _votes(
    operation: _Operation, computations: dict[str, list[_Operation]]
) -> collections.Counter[str]:
    """Return how many operations of each part are in it."""
    votes: collections.Counter[str] = collections.Counter()
    if operation.opcode in _INLINED:
        for name in operation.called:
            for inner in computations.get(name, ()):
                votes.update(_votes(inner, computations))
    if not votes and operation.part is not None:
        votes[operation.part] += 1
    return votes


def _most(votes: collections.Counter[str], own: str | None = None) -> str:
    """Return the part with most votes; of equal ones its own, then any part before none."""
    return max(votes, key=lambda part: (votes[part], part == own, part != OTHER))


def _with_neighbours(operations: list[_Operation], known: dict[str, str]) -> dict[str, str]:
    """Return the parts of a computation's operations, the unknown ones taken from next to them."""
    known = dict(known)
    used = {x.name: x.operands for x in operations if x.opcode not in _PLUMBING}
    users = collections.defaultdict(list)
    for name, operands in used.items():
        for operand in operands:
            users[operand].append(name)
    for neighbours in (users, used):
        changed = True
        while changed:
            changed = False
            for name in reversed(used):
                votes = collections.Counter(
                    known[x] for x in neighbours.get(name, ()) if x in known and x in used
                )
                if name not in known and votes:
                    known[name] = _most(votes)
                    changed = True
    return known
