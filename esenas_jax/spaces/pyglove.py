"""To PyGlove and back: search spaces, DNA, and the objects that architectures stand for.

Nothing here is compiled by JAX, and nothing of PyGlove is built before it is asked for: the
specification of a large `sublist_of` takes PyGlove minutes (64 of 736 items, 50 s).
"""

import collections
import collections.abc
import dataclasses
import functools
import itertools
import json
import re
import types
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import pyglove as pg

from esenas_jax.spaces.choices import FloatRange, OneOf, SubsetOf
from esenas_jax.spaces.compositions import Product, Repeat
from esenas_jax.spaces.conditional import Chosen, Conditional
from esenas_jax.spaces.space import Space
from esenas_jax.types import Genotype


@dataclasses.dataclass(frozen=True)
class Translation:
    """A search space in both languages.

    Attributes:
        space: for devices.
        spec: PyGlove's specification of it.
        template: the user's own object with choices in it, if that is where it came from.
    """

    space: Space
    spec: pg.DNASpec
    template: Any = None

    def to_dna(self, genotype: Genotype) -> pg.DNA:
        """Return the DNA of a genotype, with the specification attached."""
        return to_dna(self.space, genotype).use_spec(self.spec)

    def from_dna(self, dna: pg.DNA) -> Genotype:
        """Return the genotype of a DNA, as NumPy arrays.

        Raises:
            ValueError: if it is the DNA of another space.
        """
        return from_dna(self.space, dna)

    def materialize(self, genotype: Genotype) -> Any:
        """Return the user's own object for an architecture: their template, its choices made.

        Raises:
            ValueError: if the space came from a specification, which has no object.
        """
        if self.template is None:
            raise ValueError(
                "materialize needs the template that the space came from, and it came from a "
                "DNASpec or a traced function: give from_pyglove the object that has the choices "
                "in it, or call the function in `with context.apply(translation.to_dna(genotype))`."
            )
        return self.template.decode(self.to_dna(genotype))


def from_pyglove(value: Any) -> Translation:
    """Compile a PyGlove search space: any combination of its decisions, nested and conditional.

    `oneof`, `manyof`, `sublist_of`, `permutate` and `floatv` become `OneOf`, `SubsetOf` and
    `FloatRange`; candidates with choices of their own make them `Conditional`. Several decisions
    become a `Product` of an OrderedDict from their paths in the template ("layers[0].width"). Equal
    ones in a row that are entries of one list become one `Repeat` ("ops[0]" to "ops[7]" are "ops",
    or "ops[0:8]" if the list has others too), so that a network's worth of choices is one array.

    The `scale` of a `floatv` ("log", "rlog") is that of the `FloatRange`: numbers are drawn and
    moved along it. PyGlove's own `Uniform` mutator and random generator do not use it.

    Args:
        value: an object with PyGlove's choices in it, a dict or a list of such, a `pg.template`,
            the `pg.DNASpec` of one, or what `pg.hyper.trace` returns of a function.

    Raises:
        ValueError: if nothing is to be chosen; if a choice is in a tuple, a set or an object that
            PyGlove does not look into; or if a decision cannot be compiled (a custom one, or a
            number that no float32 can be). It is named.

    Example:
        >>> import pyglove as pg
        >>> translation = from_pyglove(pg.Dict(width=pg.oneof([8, 16]), rate=pg.floatv(0.0, 1.0)))
        >>> print(translation.space)
        {width: 1 of 2, rate: [0, 1]}
        >>> import jax
        >>> genotype = translation.space.sample(jax.random.key(0))
        >>> translation.materialize(genotype).width in (8, 16)
        True
    """
    if isinstance(value, pg.DNASpec):
        return Translation(_compile(_chosen_from(value, value)), value)
    if isinstance(value, pg.hyper.DynamicEvaluationContext):
        return Translation(_compile(_chosen_from(value, value.dna_spec)), value.dna_spec)
    if not isinstance(value, pg.hyper.ObjectTemplate):
        # PyGlove finds choices in a plain dict or list, and cannot make them there.
        value = pg.template(_symbolic(value))
    _refuse_hidden_choices(value.value)
    spec = value.dna_spec()
    return Translation(_compile(_chosen_from(value.value, spec)), spec, value)


def to_pyglove(space: Space) -> pg.DNASpec:
    """Return PyGlove's specification of a space, its candidates without meaning.

    Raises:
        TypeError: if it is a space of another kind than those of this package.
    """
    points = list(_points(space, ""))
    if len(points) == 1 and not points[0].location:
        return points[0]
    return pg.geno.space(points)


def to_dna(space: Space, genotype: Genotype) -> pg.DNA:
    """Return the DNA of a genotype, without a specification: fast, whatever the space's size.

    Raises:
        ValueError: if the genotype is none of the space.
    """
    genotype = jax.tree.map(np.asarray, genotype)
    space.validate(genotype)
    return _joined(list(_to_nodes(space, genotype)))


def from_dna(space: Space, dna: pg.DNA) -> Genotype:
    """Return the genotype of a DNA, as NumPy arrays; floats are rounded to float32.

    What PyGlove 0.4.5 accepts is accepted, but for choices below 0: PyGlove lets them pass, and
    takes -1 for the last option, as Python's lists do.

    Raises:
        TypeError, ValueError: if it is no DNA, or that of another space.
    """
    if not isinstance(dna, pg.DNA):
        raise TypeError(f"dna must be a pg.DNA, got {dna!r:.80}.")
    return _from_tree(space, dna)


def dumps(space: Space, genotype: Genotype) -> str:
    """Return an architecture as PyGlove's JSON, which `pg.from_json_str` reads as a DNA.

    Raises:
        ValueError: if the genotype is none of the space.
    """
    return pg.to_json_str(to_dna(space, genotype))


def loads(space: Space, text: str) -> Genotype:
    """Return the architecture in PyGlove's JSON of a DNA, as NumPy arrays.

    The text may come from anywhere: PyGlove does not read it, whose reader imports what a text
    names, and unpickles what it holds. Numbers alone are taken from it; a DNA's metadata is not.

    Raises:
        ValueError: if it is not one of this space.
    """
    try:
        dna = _dna_from_json(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"the JSON must be that of a pg.DNA, got {text[:40]!r}: {error}"
        ) from error
    return from_dna(space, dna)


# --- JSON -----------------------------------------------------------------------------------------

_DNA_KEYS = {"_type", "format", "value", "children", "metadata", "_cloneable_metadata_keys"}


def _dna_from_json(node: Any) -> pg.DNA:
    """Return the DNA that PyGlove writes as this JSON value, compact or node by node."""
    name = dict(pg.DNA(0).to_json())["_type"]  # pyright: ignore[reportArgumentType, reportCallIssue]
    if not isinstance(node, dict) or node.get("_type") != name:
        found = node.get("_type") if isinstance(node, dict) else type(node).__name__
        raise ValueError(f"its type is {found}, and must be {name}")
    if unknown := set(node) - _DNA_KEYS:
        raise ValueError(f"a DNA has no {', '.join(sorted(unknown))}")
    if node.get("format") == "compact":
        return pg.DNA.parse(_numbers_from_json(node.get("value")))
    value, children = node.get("value"), node.get("children") or []
    if isinstance(value, list | dict) or not isinstance(children, list):
        raise ValueError("a DNA that is not compact must have one number, and a list of children")
    return pg.DNA(_numbers_from_json(value), [_dna_from_json(child) for child in children])


def _numbers_from_json(value: Any) -> Any:
    """Return numbers in lists and in what PyGlove writes for tuples."""
    if isinstance(value, list):
        if value[:1] == ["__tuple__"]:
            return tuple(map(_numbers_from_json, value[1:]))
        return list(map(_numbers_from_json, value))
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise ValueError(f"a DNA must be made of numbers, got {value!r:.40}")


# --- templates ------------------------------------------------------------------------------------


def _symbolic(value: Any) -> Any:
    """Return a plain dict or list as PyGlove's, which it can make choices in."""
    if isinstance(value, pg.Symbolic) or not isinstance(value, dict | list):
        return value
    try:
        return pg.Dict(value) if isinstance(value, dict) else pg.List(value)
    except (KeyError, TypeError, ValueError) as error:
        kind = type(value).__name__
        raise ValueError(f"PyGlove can make no template of this {kind}: {error}") from error


def _chosen_from(value: Any, spec: pg.DNASpec) -> list[pg.DNASpec]:
    """Return the decisions of a template; raise ValueError if there are none."""
    if elements := _elements(spec):
        return elements
    function = isinstance(value, types.FunctionType | types.MethodType | functools.partial)
    advice = "; trace a function first: from_pyglove(pg.hyper.trace(function))" if function else ""
    raise ValueError(
        f"a template must have a choice in it (oneof, manyof, sublist_of, permutate or floatv), "
        f"got {repr(value)[:80]}{advice}."
    )


_ATOMS = (str, bytes, int, float, complex, range, type, types.ModuleType, type(None))
# A user's tools, whose choices are their own.
_TOOLS = (pg.hyper.ObjectTemplate, pg.hyper.DynamicEvaluationContext, pg.DNAGenerator, pg.DNASpec)


def _refuse_hidden_choices(template: Any) -> None:
    """Raise ValueError if there is a choice where PyGlove does not look: it would stay a choice."""
    left: list[tuple[Any, str, str | None]] = [(template, "", None)]
    seen: dict[tuple[int, bool], Any] = {}  # objects stay alive, so that no id is used again
    while left:
        value, at, holder = left.pop()  # holder: the outermost type that PyGlove does not look into
        place = (id(value), holder is None)
        if isinstance(value, _ATOMS) or (at and isinstance(value, _TOOLS)) or place in seen:
            continue
        seen[place] = value
        if holder and isinstance(value, pg.hyper.HyperPrimitive):
            raise ValueError(
                f"the choice at {at!r} is in a {holder}, which PyGlove does not look into: use a "
                "list, a dict, or a class made by pg.symbolize."
            )
        if isinstance(value, pg.Symbolic):
            parts = list(value.sym_items())
        else:
            parts, holder = _parts(value), holder or type(value).__name__
        left += [(part, _below_path(at, key), holder) for key, part in reversed(parts)]


def _parts(value: Any) -> list[tuple[Any, Any]]:
    """Return what an object holds, by key; nothing of one that cannot be read."""
    try:
        match value:
            case collections.abc.Mapping():
                return list(value.items())
            case list() | tuple() | set() | frozenset() | collections.deque():
                return list(enumerate(value))
            case np.ndarray():
                return list(enumerate(value.flat)) if value.dtype == object else []
            case functools.partial():
                return [("func", value.func), *enumerate(value.args), *value.keywords.items()]
            case types.MethodType():
                return [("__self__", value.__self__)]
            case types.FunctionType():
                names, cells = value.__code__.co_freevars, value.__closure__ or ()
                return [(n, cell.cell_contents) for n, cell in zip(names, cells, strict=True)]
        slots = [name for kind in type(value).__mro__ for name in _slots(kind)]
        held = {name: getattr(value, name) for name in slots if hasattr(value, name)}
        return list((held | getattr(value, "__dict__", {})).items())
    except Exception:  # of the object's own code
        return []


def _slots(kind: type) -> list[str]:
    slots = vars(kind).get("__slots__", ())
    return [slots] if isinstance(slots, str) else list(slots)


def _below_path(at: str, key: Any) -> str:
    if isinstance(key, int):
        return f"{at}[{key}]"
    return f"{at}.{key}" if at else str(key)


# --- spaces ---------------------------------------------------------------------------------------


def _elements(spec: pg.DNASpec) -> list[pg.DNASpec]:
    return list(spec.elements) if isinstance(spec, pg.geno.Space) else [spec]


def _compile(elements: list[pg.DNASpec]) -> Space:
    if not elements:
        return Repeat(OneOf(1), 0)
    named = [(str(element.location), _compile_one(element)) for element in elements]
    groups = [
        (stem, one, [path for path, _ in group])
        for (stem, one), group in itertools.groupby(named, key=lambda n: (_stem(n[0]), n[1]))
    ]
    times = collections.Counter(stem for stem, *_ in groups)
    parts: OrderedDict[str, Space] = OrderedDict()
    for stem, one, paths in groups:
        name, space = paths[0], one
        if len(paths) > 1:
            name, space = stem.removesuffix("["), Repeat(one, len(paths))
            if name != stem and times[stem] > 1:
                first, last = (int(path[len(stem) : -1]) for path in (paths[0], paths[-1]))
                name = f"{stem}{first}:{last + 1}]"
        while name in parts:  # a specification by hand may leave locations out
            name += "'"
        parts[name] = space
    if list(parts) == [""]:
        return parts[""]
    return Product(parts)


def _stem(path: str) -> str:
    """Return what the paths of a list's entries have in common: "ops[" of "ops[7]"."""
    return re.sub(r"(?<=\[)\d+\]$", "", path)


def _compile_one(element: pg.DNASpec) -> Space:
    at = str(element.id)  # from the root
    match element:
        case pg.geno.Float():
            try:
                low, high = float(element.min_value), float(element.max_value)
                return FloatRange(low, high, element.scale or "linear")
            except ValueError as error:
                raise ValueError(f"at {at!r}: {error}" if at else str(error)) from None
        case pg.geno.Choices():
            inner = [list(candidate.elements) for candidate in element.candidates]
            options = [_compile(below) if below else None for below in inner]
            number = len(options)
            choice = OneOf(number)
            if element.num_choices > 1:
                choice = SubsetOf(
                    number,
                    element.num_choices,
                    distinct=element.distinct,
                    ordered=not element.sorted,
                )
            return Conditional(options, choice) if any(inner) else choice
    raise ValueError(
        f"a {type(element).__name__} cannot be compiled, at {at!r}: it must be "
        "oneof, manyof, sublist_of, permutate or floatv."
    )


def _points(space: Space, at: str) -> Iterator[pg.DNASpec]:
    """Yield the decisions of a space, in the order of their arrays."""
    where: dict[str, Any] = {"location": pg.KeyPath.parse(at)}
    match space:
        case OneOf():
            yield pg.geno.oneof([pg.geno.constant()] * space.num_categories, **where)
        case SubsetOf():
            yield _many(space, [pg.geno.constant() for _ in range(space.num_items)], where)
        case FloatRange():
            scale = None if space.scale == "linear" else space.scale
            yield pg.geno.floatv(space.low, space.high, scale=scale, **where)
        case Conditional():
            options: list[pg.DNASpec] = [
                pg.geno.constant() if o is None else pg.geno.space(list(_points(o, "")))
                for o in space.options
            ]
            if isinstance(space.choice, OneOf):
                yield pg.geno.oneof(options, **where)
            else:
                yield _many(space.choice, options, where)
        case Repeat():
            for i in range(space.times):
                yield from _points(space.space, f"{at}[{i}]")
        case Product():
            for name, leaf in zip(space.names, space.leaves, strict=True):
                yield from _points(leaf, f"{at}.{name}" if at else name)
        case _:
            raise TypeError(f"PyGlove has no form of {space!r}.")


def _many(choice: SubsetOf, options: list[pg.DNASpec], where: dict[str, Any]) -> pg.DNASpec:
    if choice.num_chosen == 1:
        return pg.geno.oneof(options, **where)
    return pg.geno.manyof(
        choice.num_chosen,
        options,
        distinct=choice.distinct,
        sorted=not choice.ordered,
        **where,
    )


# --- genotypes ------------------------------------------------------------------------------------


class _Joined(NamedTuple):
    """What a `pg.DNA` without a value is, for reading: to make one takes a millisecond a node."""

    children: list[pg.DNA]
    value: None = None

    def __str__(self) -> str:
        return f"DNA([{', '.join(str(child.value) for child in self.children)}])"


def _below(item: pg.DNA | _Joined) -> pg.DNA | _Joined:
    """Return what an option carries, as if it stood alone."""
    return item.children[0] if len(item.children) == 1 else _Joined(list(item.children))


def _from_tree(space: Space, dna: pg.DNA | _Joined) -> Genotype:
    number = _number_of_nodes(space)
    if number == 1:
        nodes = [dna]
    elif len(dna.children) == number:  # PyGlove does not look at its value either
        nodes = list(dna.children)
    else:
        raise ValueError(f"the DNA of this space must have {number} decisions, got {dna}.")
    return _from_nodes(space, iter(nodes), "")


def _joined(nodes: list[pg.DNA]) -> pg.DNA:
    return nodes[0] if len(nodes) == 1 else pg.DNA(None, nodes)


def _number_of_nodes(space: Space) -> int:
    match space:
        case Repeat():
            return space.times * _number_of_nodes(space.space) if space.times else 0
        case Product():
            return sum(_number_of_nodes(leaf) for leaf in space.leaves)
    return 1


def _to_nodes(space: Space, genotype: Genotype) -> Iterator[pg.DNA]:
    """Yield a node for every decision that does not depend on another."""
    match space:
        case OneOf():
            yield pg.DNA(int(genotype))
        case FloatRange():
            yield pg.DNA(float(genotype))
        case SubsetOf():
            yield _joined([pg.DNA(int(item)) for item in genotype])
        case Conditional():
            if isinstance(space.choice, OneOf):
                yield _option_node(space, int(genotype.index), genotype.inner)
            else:
                copies = [
                    jax.tree.map(lambda x, i=i: x[i], genotype.inner)
                    for i in range(len(genotype.index))
                ]
                pairs = zip(genotype.index, copies, strict=True)
                yield _joined([_option_node(space, int(j), inner) for j, inner in pairs])
        case Repeat():
            for i in range(space.times):
                yield from _to_nodes(space.space, jax.tree.map(lambda x, i=i: x[i], genotype))
        case Product():
            parts = space.structure.flatten_up_to(genotype)
            for leaf, part in zip(space.leaves, parts, strict=True):
                yield from _to_nodes(leaf, part)
        case _:
            raise TypeError(f"PyGlove has no form of {space!r}.")


def _option_node(space: Conditional, chosen: int, inner: tuple[Genotype, ...]) -> pg.DNA:
    option = space.options[chosen]
    if option is None:
        return pg.DNA(chosen)
    return pg.DNA(chosen, [_joined(list(_to_nodes(option, inner[chosen])))])


def _from_nodes(space: Space, nodes: Iterator[pg.DNA | _Joined], at: str) -> Genotype:
    """Read as many nodes as the space has."""
    match space:
        case OneOf():
            return np.int32(_item(next(nodes), space.num_categories, at, leaf=True))
        case FloatRange():
            return _number(next(nodes), space, at)
        case SubsetOf():
            items = _items(next(nodes), space, at)
            index = np.array([_item(d, space.num_items, at, leaf=True) for d in items], np.int32)
            return _checked(space, index, at)
        case Conditional():
            return _from_option_nodes(space, next(nodes), at)
        case Repeat():
            if not space.times:
                return _zeros(space)
            copies = [_from_nodes(space.space, nodes, f"{at}[{i}]") for i in range(space.times)]
            return jax.tree.map(lambda *x: np.stack(x), *copies)
        case Product():
            paths = [f"{at}.{name}" if at else name for name in space.names]
            leaves = zip(space.leaves, paths, strict=True)
            return space.structure.unflatten([_from_nodes(s, nodes, path) for s, path in leaves])
    raise TypeError(f"PyGlove has no form of {space!r}.")


def _from_option_nodes(space: Conditional, node: pg.DNA | _Joined, at: str) -> Chosen:
    choice = space.choice
    one = isinstance(choice, OneOf)
    items = [node] if one else _items(node, choice, at)
    number = len(space.options)
    index = np.array([_item(d, number, at, leaf=False) for d in items], np.int32)
    inner: Any = [() if o is None else _zeros(Repeat(o, len(items))) for o in space.options]
    for place, (j, item) in enumerate(zip(index, items, strict=True)):
        option = space.options[j]
        below = f"{at}: option {j}" if at else f"option {j}"
        if option is None:
            if item.children:
                raise _wrong(at, f"option {j} carries no choices", item)
            continue
        try:
            carried = _from_tree(option, _below(item))
        except ValueError as error:
            raise ValueError(f"{below}: {error}") from None
        jax.tree.map(functools.partial(_put, place), inner[j], carried)
    chosen: Any = (index, tuple(inner))
    if isinstance(choice, SubsetOf):
        _checked(choice, index, at)
    else:
        chosen = jax.tree.map(lambda x: x[0], chosen)
    return Chosen(*chosen)


def _put(place: int, block: np.ndarray, value: np.ndarray) -> None:
    block[place] = value


def _zeros(space: Space) -> Genotype:
    """Return a genotype of zeros, which need not be one of the space."""
    match space:
        case OneOf():
            return np.zeros((), np.int32)
        case FloatRange():
            return np.zeros((), np.float32)
        case SubsetOf():
            return np.zeros(space.num_chosen, np.int32)
        case Conditional():
            index = _zeros(space.choice)
            inner = tuple(() if o is None else _zeros(o) for o in space.options)
            if index.ndim:
                inner = jax.tree.map(lambda x: np.zeros((index.size, *x.shape), x.dtype), inner)
            return Chosen(index, inner)
        case Repeat():
            one = _zeros(space.space)
            return jax.tree.map(lambda x: np.zeros((space.times, *x.shape), x.dtype), one)
        case Product():
            return space.structure.unflatten([_zeros(leaf) for leaf in space.leaves])
    raise TypeError(f"PyGlove has no form of {space!r}.")


def _items(node: pg.DNA | _Joined, choice: SubsetOf, at: str) -> list[pg.DNA | _Joined]:
    if choice.num_chosen == 1:
        return [node]
    if len(node.children) != choice.num_chosen:
        raise _wrong(at, f"{choice.num_chosen} items must be chosen", node)
    return list(node.children)


def _item(node: pg.DNA | _Joined, number: int, at: str, leaf: bool) -> int:
    if not isinstance(node.value, int) or not 0 <= node.value < number:
        raise _wrong(at, f"a choice must be an integer in [0, {number - 1}]", node)
    if leaf and node.children:
        raise _wrong(at, f"option {node.value} carries no choices", node)
    return node.value


def _number(node: pg.DNA | _Joined, space: FloatRange, at: str) -> np.float32:
    if not isinstance(node.value, float) or not space.low <= node.value <= space.high:
        raise _wrong(at, f"a number must be a float in {space}", node)
    if node.children:
        raise _wrong(at, "a number carries no choices", node)
    return np.clip(np.float32(node.value), *space.bounds)


def _checked(space: SubsetOf, index: np.ndarray, at: str) -> np.ndarray:
    try:
        space.validate(index)
    except ValueError as error:
        raise ValueError(f"{at}: {error}" if at else str(error)) from None
    return index


def _wrong(at: str, must: str, node: pg.DNA | _Joined) -> ValueError:
    return ValueError(f"{at}: {must}, got {node}." if at else f"{must}, got {node}.")
