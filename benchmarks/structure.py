"""How large the source is: files, lines of code, functions, and circles of imports.

`python benchmarks/structure.py [SRC] [--check]`. A line of code holds a token and is neither
comment nor docstring. Imports count inside functions too, but not under `if TYPE_CHECKING`.
"""

import argparse
import ast
import io
import statistics
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LIMITS = {"files": 80, "code lines": 10_500, "median file": 180, "largest file": 450,
          "longest function": 60, "import circles": 0}  # fmt: skip
SOURCE = Path(__file__).resolve().parents[1] / "src" / "twotime"
BLANK = ("COMMENT", "NL", "NEWLINE", "INDENT", "DEDENT", "ENDMARKER")
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


class Source(NamedTuple):
    """One file: the dotted name of its package, its text and its syntax tree."""

    package: str
    text: str
    tree: ast.Module


def read(root: Path) -> dict[str, Source]:
    """All files of a package by dotted name; `__init__.py` has the name of its package."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        package = ".".join(path.relative_to(root.parent).parent.parts)
        text = path.read_text(encoding="utf-8")
        name = package if path.stem == "__init__" else f"{package}.{path.stem}"
        found[name] = Source(package, text, ast.parse(text))
    return found


def code_lines(source: Source) -> int:
    """Number of lines that hold code."""
    lines, docstrings = set[int](), set[int]()
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if tokenize.tok_name[token.type] not in BLANK:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(source.tree):
        # A bare string documents a module, class, function, or the attribute above it (PEP 257).
        if isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str):
            docstrings.update(range(node.lineno, node.end_lineno + 1))
    return len(lines - docstrings)


def run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Everything below a node except what stands under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).split(".")[-1] == "TYPE_CHECKING":
            child = ast.Module(child.orelse, [])
        yield child
        yield from run_time_nodes(child)


def imports(source: Source, sources: dict[str, Source]) -> set[str]:
    """Names of the modules of the package that a file imports."""
    names: list[str] = []
    for node in run_time_nodes(source.tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = source.package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*above, node.module or ""]).rstrip(".")
            deeper = [f"{base}.{alias.name}" for alias in node.names]
            names += [name if name in sources else base for name in deeper]
    return {name for name in names if name in sources and sources[name] is not source}


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Sets of modules each of which imports all others, directly or through others."""
    reached = {name: set[str]() for name in graph}
    for name, seen in reached.items():
        todo = [name]
        while todo:
            todo += graph[todo.pop()] - seen
            seen |= set(todo)
    return {r for a in graph if (r := frozenset(b for b in reached[a] if a in reached[b]))}


def main() -> int:
    """Print the figures; 1 if they are to be checked and one is beyond its limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", type=Path, default=SOURCE, metavar="SRC")
    parser.add_argument("--check", action="store_true", help="exit 1 beyond the limits")
    arguments = parser.parse_args()
    sources = read(arguments.source.resolve())
    code = {name: code_lines(source) for name, source in sources.items()}
    lengths = {name: len(source.text.splitlines()) for name, source in sources.items()}
    spans = {f"{name}.{node.name}": node.end_lineno - node.lineno + 1
             for name in sources for node in ast.walk(sources[name].tree)
             if isinstance(node, FUNCTIONS)}  # fmt: skip
    rings = circles({name: imports(source, sources) for name, source in sources.items()})
    figures = dict(zip(LIMITS, [
        (len(sources), ""), (sum(code.values()), f"of {sum(lengths.values())} lines"),
        (statistics.median(lengths.values()), "lines"),
        *((max(found.values()), max(found, key=found.get)) for found in (lengths, spans)),
        (len(rings), "; ".join(" ↔ ".join(sorted(ring)) for ring in rings)),
    ], strict=True))  # fmt: skip
    beyond = [name for name, (figure, _) in figures.items() if figure > LIMITS[name]]
    for name, (figure, remark) in figures.items():
        verdict = "beyond" if name in beyond else "within"
        print(f"{name:18}{figure:>7g}  {verdict} {LIMITS[name]:<7}{remark}".rstrip())
    print(f"\n{'package':30}{'files':>7}{'code lines':>12}")
    for package in dict.fromkeys(source.package for source in sources.values()):
        inside = [code[name] for name, source in sources.items() if source.package == package]
        print(f"{package:30}{len(inside):>7}{sum(inside):>12}")
    return int(arguments.check and bool(beyond))


if __name__ == "__main__":
    raise SystemExit(main())
