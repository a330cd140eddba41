"""Small changes of the code that break it: which there are, and a sample of them that stays the same."""

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OPPOSITES: dict[type[ast.cmpop], tuple[str, str, str]] = {
    ast.Eq: ("comparison", "==", "!="),
    ast.NotEq: ("comparison", "!=", "=="),
    ast.Is: ("comparison", r"\bis\b", "is not"),
    ast.IsNot: ("comparison", r"\bis\s+not\b", "is"),
    ast.In: ("comparison", r"\bin\b", "not in"),
    ast.NotIn: ("comparison", r"\bnot\s+in\b", "in"),
    ast.Lt: ("boundary", "<", "<="),
    ast.LtE: ("boundary", "<=", "<"),
    ast.Gt: ("boundary", ">", ">="),
    ast.GtE: ("boundary", ">=", ">"),
}


@dataclass(frozen=True)
class Mutation:
    """One change: the bytes from `start` to `end` of the file become `after`. The lines keep their numbers."""

    path: str
    function: str
    kind: str
    lines: tuple[int, int]
    start: int
    end: int
    before: str
    after: str

    def apply(self, root: Path) -> None:
        """Write the change into the file under `root`."""
        file = root / self.path
        source = file.read_bytes()
        assert source[self.start : self.end] == self.before.encode(), f"{self} was found in another version of its file"
        file.write_bytes(source[: self.start] + self.after.encode() + source[self.end :])

    def __str__(self) -> str:
        before, after = (" ".join(text.split()) for text in (self.before, self.after))
        return f"{self.path}:{self.lines[0]} {self.kind}: {before[:80]} -> {after[:80]}"

    def rank(self, seed: int, occurrence: int) -> bytes:
        """A number that code beside this function does not change, so that commits have the same sample."""
        text = f"{seed} {self.path} {self.function} {self.kind} {self.before} {self.after} {occurrence}"
        return hashlib.sha256(text.encode()).digest()


class _Finder(ast.NodeVisitor):
    """Finds the changes within the bodies of a file's functions."""

    def __init__(self, path: str, source: bytes) -> None:
        self.found: list[Mutation] = []
        self._path = path
        self._source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._names: list[str] = []
        self._functions = 0

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start, end = (
            self._starts[node.lineno - 1] + node.col_offset,
            self._starts[node.end_lineno - 1] + node.end_col_offset,
        )
        return start, end

    def _text(self, start: int, end: int) -> str:
        return self._source[start:end].decode()

    def _add(self, node: ast.expr | ast.stmt, kind: str, after: str, span: tuple[int, int] | None = None) -> None:
        start, end = span or self._span(node)
        lines = (node.lineno, node.end_lineno or node.lineno)
        before = self._text(start, end)
        if self._functions and before != after:
            self.found.append(Mutation(self._path, ".".join(self._names), kind, lines, start, end, before, after))

    def _visit_definition(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, functions: int) -> None:
        self._names.append(node.name)
        self._functions += functions
        for statement in node.body:
            self.visit(statement)
        self._functions -= functions
        self._names.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:  # ast names it
        self._visit_definition(node, 1)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._visit_definition(node, 1)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit_definition(node, 0)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assert(self, node: ast.Assert) -> None:
        """An assertion tells the type checker something, and no test can see it."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Python 3.11 does not know where the parts of an f-string stand."""

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            kind, pattern, opposite = OPPOSITES[type(operator)]
            span = self._span(left)[1], self._span(right)[0]
            self._add(node, kind, re.sub(pattern, opposite, self._text(*span), count=1), span)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._add(node, "constant", str(not node.value))
        elif isinstance(node.value, int | float):
            self._add(node, "constant", str(node.value + 1))

    def visit_Call(self, node: ast.Call) -> None:
        match node.args:
            case [ast.Starred(), *_] | [_, ast.Starred(), *_]:
                pass
            case [first, second, *_]:
                spans = self._span(first), self._span(second)
                swapped = self._text(*spans[1]) + self._text(spans[0][1], spans[1][0]) + self._text(*spans[0])
                self._add(node, "argument", swapped, (spans[0][0], spans[1][1]))
        self.generic_visit(node)

    def _visit_condition(self, node: ast.If | ast.While | ast.IfExp) -> None:
        self._add(node.test, "not", f"(not ({self._text(*self._span(node.test))}))")
        self.generic_visit(node)

    visit_If = visit_While = visit_IfExp = _visit_condition  # noqa: N815

    def _drop(self, node: ast.stmt) -> None:
        self._add(node, "statement", "pass" + "\n" * ((node.end_lineno or node.lineno) - node.lineno))
        self.generic_visit(node)

    visit_AugAssign = visit_Delete = visit_Raise = _drop  # noqa: N815

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call | ast.Await):
            self._drop(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
            self._drop(node)
        else:
            self.generic_visit(node)


def find_mutations(path: str, source: bytes) -> list[Mutation]:
    """Return all changes of a file, in the order of their kinds' places."""
    finder = _Finder(path, source)
    finder.visit(ast.parse(source))
    return finder.found


def _ranked(root: Path, package: str, seed: int) -> Iterator[tuple[bytes, Mutation]]:
    for file in sorted((root / package).rglob("*.py")):
        seen: Counter[tuple[str, str, str]] = Counter()
        for mutation in find_mutations(str(file.relative_to(root)), file.read_bytes()):
            same = (mutation.function, mutation.before, mutation.after)
            seen[same] += 1
            yield mutation.rank(seed, seen[same]), mutation


def sample(root: Path, package: str, seed: int, count: int) -> list[Mutation]:
    """Return `count` changes of a package under `root`, the same ones as long as their functions stay as they are."""
    ranked = sorted(_ranked(root, package, seed), key=lambda pair: pair[0])
    return [mutation for _, mutation in ranked[:count]]
