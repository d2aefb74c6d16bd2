"""Draw docs/rooms.png, the rooms of the house, from the imports of the code.

`python benchmarks/rooms.py`. A floor is a layer of pyproject.toml and imports only floors below
it; a room is a package, with a cell for each file.
"""

import ast
import tomllib
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import structure

ROOT = Path(__file__).resolve().parents[1]
COLOURS = ("#dce6f2", "#e3efdc", "#f6ecd2", "#f3ded8", "#e6def0")


def floors() -> list[list[str]]:
    """Packages of each layer, the ground floor first."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers")
    return [layer.replace(" ", "").split("|") for layer in reversed(layers)]


def files_of(package: str, sources: dict[str, structure.Source]) -> dict[str, int]:
    """Files of a package with the lines of code of each; an empty `__init__` is none."""
    found = {name.removeprefix(package).strip("."): structure.code_lines(source)
             for name, source in sources.items()
             if name == package or name.startswith(package + ".")}  # fmt: skip
    return {name or package.split(".")[-1]: lines for name, lines in found.items() if lines}


def supports(sources: dict[str, structure.Source], levels: list[list[str]]) -> dict[str, set[str]]:
    """Package to the packages that it imports, without those that it has through another."""
    packages = [package for level in levels for package in level]

    def home(name: str) -> str | None:
        return next((p for p in packages if name == p or name.startswith(p + ".")), None)

    direct: dict[str, set[str]] = {package: set() for package in packages}
    for name, source in sources.items():
        if (own := home(name)) is not None:
            others = {home(other) for other in structure.imports(source, sources)}
            direct[own] |= {other for other in others if other not in (None, own)}
    reached: dict[str, set[str]] = {}
    for package in packages:  # a floor comes after all that it stands on
        reached[package] = direct[package].union(*(reached[below] for below in direct[package]))
    return {p: {b for b in below if not any(b in reached[other] for other in below)}
            for p, below in direct.items()}  # fmt: skip


def draw(target: Path) -> None:
    """Draw the house into a file."""
    sources = structure.read(structure.SOURCE)
    levels = floors()
    figure, axes = plt.subplots()
    widest = 0.0
    for height, level in enumerate(levels):
        place = 0.0
        for package in level:
            name = package.split(".")[-1]
            purpose = (ast.get_docstring(sources[package].tree) or "").splitlines()[0]
            if place == 0.0:
                axes.text(-0.2, height + 0.36, name, ha="right", va="center", weight="bold")
                axes.text(0.0, height + 0.79, purpose, fontsize=6.5, color="#555555")
            for file in [name] if package not in packages(sources) else files_of(package, sources):
                width = 0.35 + 0.105 * len(file.split(".")[-1])
                axes.add_patch(plt.Rectangle((place, height), width, 0.72, ec="#555555", lw=0.8,
                                             fc=COLOURS[height % len(COLOURS)]))  # fmt: skip
                axes.text(place + width / 2, height + 0.36, file.split(".")[-1], ha="center",
                          va="center", fontsize=8)  # fmt: skip
                place += width
            place += 0.4
        widest = max(widest, place)
    figure.set_size_inches(0.72 * (widest + 1.5), 0.6 * len(levels) + 0.8)
    axes.set_xlim(-1.5, widest)
    axes.set_ylim(-0.2, len(levels) + 0.1)
    axes.axis("off")
    figure.savefig(target, dpi=130, bbox_inches="tight")
    for package, below in supports(sources, levels).items():
        print(f"{package:24} stands on {', '.join(sorted(below)) or 'nothing'}")


def packages(sources: dict[str, structure.Source]) -> set[str]:
    """Names of the modules that hold others."""
    return {source.package for source in sources.values()}


if __name__ == "__main__":
    draw(ROOT / "docs" / "rooms.png")
