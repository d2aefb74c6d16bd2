"""Chores of the project: `python -m nox -s NAME`; `python -m nox -l` lists them."""

from pathlib import Path

import nox

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests", "long", "lint"]

# Shapes and types of every call are checked, see tests/typing_checks.py.
CHECKED = "--jaxtyping-packages=twotime,typing_checks.checked"


# Tests compile far more than they compute: XLA need not optimise what runs once.
UNOPTIMISED = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
WORKERS = ("-n", "auto", "--dist", "worksteal")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the test suite but what other sessions run, or `-- ARGUMENTS` of pytest."""
    session.install("-e", ".[dev]")
    everything = [
        *WORKERS,
        "-m",
        "not statistics and not long and not documents",
        "--doctest-modules",
        "src",
        "tests",
    ]
    session.run("pytest", CHECKED, *(session.posargs or everything), env={"XLA_FLAGS": UNOPTIMISED})


@nox.session
def long(session: nox.Session) -> None:
    """Run the tests that take long, each with a shorter one of its kind among the tests."""
    session.install("-e", ".[dev]")
    session.run("pytest", CHECKED, *WORKERS, "-m", "long", "tests", env={"XLA_FLAGS": UNOPTIMISED})


@nox.session
def statistics(session: nox.Session) -> None:
    """Count coverage, calibration and recoveries over many simulations."""
    session.install("-e", ".[dev]")
    session.run("pytest", *WORKERS, "-m", "statistics", *(session.posargs or ["tests"]))


@nox.session
def strict(session: nox.Session) -> None:
    """Call every verb in hosts with strict settings of JAX, and under every transformation."""
    session.install("-e", ".[dev]")
    files = "tests/test_composition_strict.py", "tests/test_composition_matrix.py"
    everything = ["-s", "-m", "statistics or not statistics", *files]
    session.run("pytest", *(session.posargs or everything), env={"XLA_FLAGS": UNOPTIMISED})


@nox.session
def fuzz(session: nox.Session) -> None:
    """Damage thousands of inputs; each must be read right or refused in a sentence."""
    session.install("-e", ".")
    session.run("python", "benchmarks/fuzz.py", *session.posargs)


@nox.session
def viewer(session: nox.Session) -> None:
    """Open a simulated file with the reader of pyXpcsViewer; skipped where it does not install."""
    session.install("-e", ".[dev]")
    session.run("pip", "install", "xpcs-viewer>=1.2", success_codes=[0, 1])
    session.run("pytest", "-W", "ignore", "tests/test_data_viewer.py")


@nox.session
def mutants(session: nox.Session) -> None:
    """Change each constant of tests/mutants.md and demand that its test fails."""
    session.install("-e", ".[dev]")
    session.run("python", "tests/mutants.py", *session.posargs, env={"XLA_FLAGS": UNOPTIMISED})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, types, the direction of imports and the size of the house."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("lint-imports")
    session.run("python", "benchmarks/structure.py")


@nox.session
def fit(session: nox.Session) -> None:
    """Fit the embedded example into ./results, or your own: `-- run.yaml -o DIR`.

    Folders are those of where nox is called, not of the project.
    """
    session.install("-e", ".")
    arguments = list(session.posargs)
    if not arguments:
        config = str(Path(session.create_tmp(), "run.yaml").absolute())
        session.run("twotime", "init", "--example", "--overwrite", "-o", config)
        arguments = [config, "-o", "results", "--overwrite"]
    with session.chdir(session.invoked_from):
        session.run("twotime", "fit", *arguments)


@nox.session
def docs(session: nox.Session) -> None:
    """Run every code block of README.md and docs and the examples, and build the site in ./site."""
    session.install("-e", ".[dev,docs]")
    session.run("pytest", "tests/test_docs.py", *session.posargs)
    session.run("mkdocs", "build", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})
    session.run("python", "docs/notebooks.py", "site/notebooks")


@nox.session
def extension(session: nox.Session) -> None:
    """Install the example of a law in another package, and test it from its own folder."""
    session.install("-e", ".")
    session.chdir("examples/extension")
    session.install(".[test]")
    session.run("pytest", *session.posargs, env={"XLA_FLAGS": UNOPTIMISED})


@nox.session
def bench(session: nox.Session) -> None:
    """Measure time and memory of fits and of commands; `-- ARGUMENTS` go to benchmarks/run.py."""
    session.install("-e", ".[dev]")
    session.run("python", "benchmarks/run.py", *session.posargs)
    session.run("python", "benchmarks/commands.py")
