"""Programs kept on disk: what tells them apart, and that a new process finds them untraced."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime import programs
from twotime.compilation import compiled
from twotime.models.scaling import Individual
from twotime.results.nlsq import NLSQResult

T, PHI = 0.1 * np.arange(1, 13), np.array([0.0, 90.0])
LAW = tt.StaticDiffusion()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Programs are kept here during a test."""
    monkeypatch.setattr(programs, "_kept", None)
    programs.keep(tmp_path)
    return tmp_path


def anew(folder):
    """What a new process knows: nothing but the folder."""
    programs.keep(folder)


def data(seed=0, frames=12):
    return tt.simulate(
        LAW, jnp.array([2e4, -0.2, 0.0]), t=T[:frames], q=0.01, phi=PHI, contrast=0.3, offset=1.0,
        noise=0.01, key=jax.random.key(seed),
    )  # fmt: skip


def key(*arguments, function=tt.fit_nlsq.__wrapped__, **named):
    return programs.key_of(function, (arguments, named))


def of_twotime(function):
    """A function as if it stood in this package."""
    function.__module__ = "twotime.somewhere"
    return function


class OfSomeoneElse(tt.StaticDiffusion):
    """A law whose source is not among those that the key holds."""


def test_numbers_share_a_program_and_shapes_words_and_laws_do_not(folder):
    one = key(LAW, data(), mode="auto")
    assert one == key(LAW, data(seed=1), mode="auto") is not None
    others = [
        key(LAW, data(), mode="individual"),
        key(LAW, data(), kind="auto"),
        key(LAW, data(frames=11), mode="auto"),
        key(LAW, dataclasses.replace(data(), sigma=np.float64(0.1)), mode="auto"),
        key(tt.StaticDiffusion(transport=tt.Constant()), data(), mode="auto"),
        key(LAW, data(), mode="auto", function=tt.fit_cmc.__wrapped__),
        key(LAW, jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), data()), mode="auto"),
    ]
    assert len({one, *others}) == 8 and None not in others


def test_words_of_a_type_are_told_apart(folder):
    values = [1, 1.0, True, "1", None, "None", b"1", (1,), [1], {1: 1}, {"1": 1}, int, float]
    assert len({key(value) for value in values}) == len(values)


@pytest.mark.parametrize(
    "unknown",
    [OfSomeoneElse(), of_twotime(lambda x: x), {1}, key, Individual().basis],
    ids=["law", "lambda", "set", "function", "method"],
)
def test_what_is_not_known_has_no_key(folder, unknown):
    assert key(unknown) is None


def test_numbers_outside_of_the_tree_of_arrays_have_no_key(folder):
    @dataclasses.dataclass
    class Plain:
        numbers: np.ndarray

    Plain.__module__, Plain.__qualname__ = "twotime.somewhere", "Plain"
    assert key(Plain(1.0)) is not None
    assert key(Plain(np.ones(2))) is None


def test_other_sources_and_settings_are_other_programs(folder, monkeypatch):
    before = key(LAW)
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    anew(folder)
    assert key(LAW) != before
    monkeypatch.undo()
    monkeypatch.setattr(programs, "__file__", str(folder / "src" / "programs.py"))
    monkeypatch.setattr(programs, "_kept", None)
    (folder / "src").mkdir()
    found = set()
    for text in "ab":
        (folder / "src" / "programs.py").write_text(text)
        programs.keep(folder)
        found.add(key(LAW))
    assert len(found) == 2


def test_a_fit_is_found_untraced_and_is_the_same(folder, monkeypatch):
    def fit(seed):
        return tt.fit_nlsq(LAW, data(seed), tt.ParameterSpace.of(LAW))

    fitted = [fit(seed) for seed in (0, 1)]
    count = len(list(folder.iterdir()))
    monkeypatch.setattr("twotime.fit.make_problem", None)  # what is traced would call it
    anew(folder)
    for seed, before in enumerate(fitted):
        after = fit(seed)
        assert isinstance(after, NLSQResult) and after.status == before.status
        assert jax.tree.structure(after) == jax.tree.structure(before)
        for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
            np.testing.assert_array_equal(x, y)
    assert len(list(folder.iterdir())) == count > 0
    with pytest.raises(TypeError, match="not callable"):
        tt.fit_nlsq(LAW, data(frames=11), tt.ParameterSpace.of(LAW))


@of_twotime
def _twice(x):
    return 2 * x, "twice"


@pytest.mark.parametrize("harm", [lambda x: x[:-1], lambda x: b"", lambda x: x + b"!"])
def test_a_damaged_program_is_compiled_anew(folder, harm):
    assert compiled(_twice)(jnp.ones(2))[1] == "twice"
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(harm(whole))
    anew(folder)
    np.testing.assert_array_equal(compiled(_twice)(jnp.ones(2))[0], [2.0, 2.0])
    assert len(path.read_bytes()) > 0.9 * len(whole)


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "_kept", None)
    (tmp_path / "file").touch()
    programs.keep(tmp_path / "file" / "programs")
    np.testing.assert_array_equal(compiled(_twice)(jnp.ones(2))[0], [2.0, 2.0])
