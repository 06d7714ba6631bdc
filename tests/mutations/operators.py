"""Mutations of a line of Python: what a slip of the pen would have made of it."""

import ast
import dataclasses
from collections.abc import Iterator

_SIGNS = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*")}
_COMPARISONS = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="),
}  # fmt: skip
_MASKS = (ast.BitAnd, ast.BitOr)


@dataclasses.dataclass(frozen=True)
class Mutation:
    """The characters [start, end) of a file become `after`."""

    kind: str  # sign, comparison, off by one, dropped mask, swapped key, or wrong axis
    line: int
    start: int
    end: int
    after: str


def mutations(source: str) -> list[Mutation]:
    """Return every mutation of the bodies of functions in a module, in the order of the text."""
    tree = ast.parse(source)
    found = set()
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.Lambda):
            found.update(_Finder(source).of(function))
    return sorted(found, key=lambda m: (m.line, m.start, m.end, m.kind))


class _Finder:
    def __init__(self, source: str):
        self.source = source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line.encode()))

    def place(self, node: ast.AST) -> tuple[int, int]:
        """Return where the text of a node starts and ends, in bytes."""
        return (
            self.starts[node.lineno - 1] + node.col_offset,
            self.starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def text(self, node: ast.AST) -> str:
        start, end = self.place(node)
        return self.source.encode()[start:end].decode()

    def of(self, function: ast.FunctionDef | ast.Lambda) -> Iterator[Mutation]:
        body = function.body if isinstance(function.body, list) else [function.body]
        for node in body:
            yield from self.within(node)

    def within(self, node: ast.AST) -> Iterator[Mutation]:
        """Yield the mutations of a node and below it; what only words an error has none."""
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.FunctionDef | ast.ClassDef):
            return
        if isinstance(node, ast.AnnAssign):
            yield from self.within(node.value) if node.value else ()
            return
        yield from self.here(node)
        for child in ast.iter_child_nodes(node):
            yield from self.within(child)

    def here(self, node: ast.AST) -> Iterator[Mutation]:
        match node:
            case ast.BinOp(left, op, right) if type(op) in _SIGNS:
                yield self.between(left, right, "sign", *_SIGNS[type(op)])
            case ast.BinOp(left, op, _) if type(op) in _MASKS:
                yield self.replaced(node, "dropped mask", f"({self.text(left)})")
            case ast.UnaryOp(ast.USub(), operand) if not isinstance(operand, ast.Constant):
                yield self.replaced(node, "sign", f"({self.text(operand)})")
            case ast.Compare(left, [op], [right]) if type(op) in _COMPARISONS:
                yield self.between(left, right, "comparison", *_COMPARISONS[type(op)])
            case ast.Constant(int(value)) if not isinstance(value, bool):
                yield self.replaced(node, "off by one", str(value + 1))
            case ast.Call(ast.Attribute(_, name) | ast.Name(name), [_, kept, _]) if name.endswith(
                "where"
            ):
                yield self.replaced(node, "dropped mask", f"({self.text(kept)})")
            case ast.Call(ast.Attribute(_, "fold_in"), [key, _]):
                yield self.replaced(node, "swapped key", f"({self.text(key)})")
            case ast.Assign([ast.Tuple([first, second, *_])], ast.Call(ast.Attribute(_, "split"))):
                start, end = self.place(first)[0], self.place(second)[1]
                swapped = f"{self.text(second)}, {self.text(first)}"
                yield Mutation("swapped key", first.lineno, start, end, swapped)
            case ast.keyword("axis", ast.Constant(0) as axis):
                yield self.replaced(axis, "wrong axis", "-1")
            case ast.keyword("axis", ast.Constant(int()) | ast.UnaryOp() as axis):
                yield self.replaced(axis, "wrong axis", "0")

    def replaced(self, node: ast.AST, kind: str, after: str) -> Mutation:
        return Mutation(kind, node.lineno, *self.place(node), after)

    def between(
        self, left: ast.AST, right: ast.AST, kind: str, before: str, after: str
    ) -> Mutation:
        """Return the mutation of the operator that stands between two nodes."""
        start, end = self.place(left)[1], self.place(right)[0]
        gap = self.source.encode()[start:end].decode()
        at = start + len(gap[: gap.index(before)].encode())
        line = self.source.encode()[:at].count(b"\n") + 1
        return Mutation(kind, line, at, at + len(before), after)


def mutated(source: str, mutation: Mutation) -> str:
    """Return the module with one mutation."""
    raw = source.encode()
    return (raw[: mutation.start] + mutation.after.encode() + raw[mutation.end :]).decode()
