"""Whether two versions of the code give the same answers.

    python benchmarks/answers.py save before.npz [--quick]
    python benchmarks/answers.py compare before.npz after.npz

`save` solves the problems below with the `twotime` that is importable and keeps the numbers;
`--quick` solves a few of them. `compare` prints by how much the numbers of two files differ, and
exits with 1 if that is more than rounding explains:

* chi2: relative difference of chi-squared.
* parameters: difference in units of the parameter's error.
* errors: relative difference of error bars, contrasts and offsets.
* draws: difference of the draws of a posterior in its standard deviations. Where they differ,
  their means and standard deviations are compared too, in units of their Monte Carlo error: below
  4 they are other draws of the same posterior.
* diagnostics: relative difference of R-hat, effective sample sizes and BFMI, which jump where
  draws change places in their order.
* ended: "same", "reworded" (other words for the same end), "recounted" (the same end after another
  number of evaluations) or "DIFFERS" (in convergence or bounds, or something was raised).

Only names that users call are used, so that a script can judge both versions. Data are simulated;
where they differ nothing else can agree, and a remark says so. Most of the time goes to compiling,
so XLA's optimiser is off unless the environment says otherwise (`XLA_FLAGS= python …`).
"""

import argparse
import dataclasses
import os
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax  # noqa: E402  reads XLA_FLAGS
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import twotime as tt  # noqa: E402

jax.config.update("jax_enable_x64", True)

LIMITS = {"chi2": 1e-10, "parameters": 1e-8, "errors": 1e-6, "draws": 1e-8, "diagnostics": 1e-2}
SAME_POSTERIOR, SAME_DATA = 4.0, 1e-10
SPAN, CONTRAST, NOISE = 12.0, 0.3, 0.02
Numbers = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Law:
    """A law, its true parameters, and where those that vary start.

    Attributes:
        model: The class of the model.
        q: Wavevector [1/Å].
        truth: All parameters.
        start: The parameters that vary, as a configuration says them; others stay at the truth.
    """

    model: Callable[..., tt.AbstractTwoTimeModel]
    q: float
    truth: Mapping[str, float]
    start: Mapping[str, Any]


LAWS = {
    "static": Law(
        tt.StaticDiffusion, 0.01,
        {"D0": 6e3, "alpha": -0.3, "D_offset": 0.0},
        {"D0": 4e3, "alpha": 0.0},
    ),
    "laminar_flow": Law(
        tt.LaminarFlow, 0.005,
        {"D0": 2.5e4, "alpha": -0.2, "D_offset": 0.0, "gamma_dot_t0": 4e-4, "beta": -0.2,
         "gamma_dot_t_offset": 0.0, "phi0": 4.0},
        {"D0": 1.5e4, "alpha": 0.0, "gamma_dot_t0": 3e-4, "beta": 0.0, "phi0": 0.0},
    ),
    "two_component": Law(
        tt.TwoComponent, 0.01,
        {"D0_ref": 2e3, "alpha_ref": 0.0, "D_offset_ref": 0.0, "D0_sample": 5e3,
         "alpha_sample": 0.0, "D_offset_sample": 0.0, "v0": 400.0, "beta": -0.05, "v_offset": 0.0,
         "f0": 0.4, "f1": -0.03, "f2": 0.0, "f3": 0.0, "phi0": 3.0},
        {"D0_ref": 1.5e3, "D0_sample": 6e3, "v0": 370.0, "beta": 0.0, "f0": 0.5, "f1": 0.0,
         "phi0": 0.0},
    ),
}  # fmt: skip


FREE = {"vary": True}


def varying(law: str) -> dict[str, Any]:
    """The parameters of a law that vary, without saying where they start."""
    return dict.fromkeys(LAWS[law].start, FREE)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a problem is solved on."""

    model: tt.AbstractTwoTimeModel
    data: tt.TwoTimeData
    space: tt.ParameterSpace


# Data: each function takes a model, its parameters and the axes.


def gaussian(model: Any, params: Any, axes: Mapping[str, Any]) -> tt.TwoTimeData:
    """Independent Gaussian noise."""
    return tt.simulate(
        model, params, **axes, contrast=CONTRAST, offset=1.0, noise=NOISE, key=jax.random.key(1)
    )


def speckle(model: Any, params: Any, axes: Mapping[str, Any]) -> tt.TwoTimeData:
    """Noise of speckle, and some of every element; the diagonal is masked.

    No counts are drawn: rounding alone would change them.
    """
    plain = tt.simulate_speckle(
        model, params, **axes, contrast=CONTRAST, n_pixels=500, key=jax.random.key(2)
    )
    white = np.triu(np.random.default_rng(6).normal(scale=NOISE, size=plain.c2.shape))
    c2 = plain.c2 + white + np.swapaxes(white, 1, 2)
    return tt.TwoTimeData(c2, plain.t, plain.q, plain.phi, mask=plain.mask)


def masked(model: Any, params: Any, axes: Mapping[str, Any]) -> tt.TwoTimeData:
    """A fifth of the elements masked, a dead frame, and no numbers there."""
    plain = gaussian(model, params, axes)
    mask = np.random.default_rng(3).random(plain.c2.shape) > 0.2
    mask[:, 7] = mask[:, :, 7] = False
    mask &= np.swapaxes(mask, 1, 2)
    return tt.TwoTimeData(np.where(mask, plain.c2, np.nan), plain.t, plain.q, plain.phi, mask=mask)


def weighted(model: Any, params: Any, axes: Mapping[str, Any]) -> tt.TwoTimeData:
    """A standard deviation for every element, which grows with age."""
    plain = gaussian(model, params, axes)
    age = 0.5 * (plain.t[:, None] + plain.t[None, :]) / SPAN
    sigma = np.broadcast_to(NOISE * (1 + age), plain.c2.shape)
    mean = 1 + CONTRAST * tt.correlation(model, params, **axes)
    c2 = mean + (plain.c2 - mean) * (1 + age)
    return tt.TwoTimeData(c2, plain.t, plain.q, plain.phi, sigma=np.array(sigma))


def one_sigma(model: Any, params: Any, axes: Mapping[str, Any]) -> tt.TwoTimeData:
    """One known standard deviation."""
    plain = gaussian(model, params, axes)
    return tt.TwoTimeData(plain.c2, plain.t, plain.q, plain.phi, sigma=np.asarray(NOISE))


def outliers(model: Any, params: Any, axes: Mapping[str, Any]) -> tt.TwoTimeData:
    """Every twentieth element far too large."""
    plain = gaussian(model, params, axes)
    hit = np.triu(np.random.default_rng(4).random(plain.c2.shape) < 0.05, 1)
    hit |= np.swapaxes(hit, 1, 2)
    return tt.TwoTimeData(np.where(hit, plain.c2 + 0.4, plain.c2), plain.t, plain.q, plain.phi)


# Verbs: each takes a setting and arguments, and returns the numbers of an answer.


def fit(on: Setting, **arguments: Any) -> Numbers:
    """One fit."""
    return of_fits([tt.fit_nlsq(on.model, on.data, on.space, **arguments)])


def fit_estimated(on: Setting, *, count: int, **arguments: Any) -> Numbers:
    """A fit from starts that are estimated from the data, and the starts themselves."""
    spaces = tt.estimate_starts(on.model, on.data, on.space, count=count, **arguments)
    starts = np.array([[space.values[name] for name in on.model.names] for space in spaces])
    result = tt.fit_nlsq(on.model, on.data, on.space, starts=starts, **arguments)
    return with_values(of_fits([result]), *starts.T)


def fit_each_angle(on: Setting, **arguments: Any) -> Numbers:
    """Angles fitted one after the other."""
    result = tt.fit_sequential(on.model, on.data, on.space, **arguments)
    return of_fits(result.fits) | {"ended": result.status.split(" (")[0]}


def fit_together(on: Setting, **arguments: Any) -> Numbers:
    """Three fits side by side, compiled once."""
    copies = [
        tt.TwoTimeData(on.data.c2 + 0.01 * k, on.data.t, on.data.q, on.data.phi) for k in range(3)
    ]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *copies)
    verb = jax.jit(jax.vmap(lambda one: tt.fit_nlsq(on.model, one, on.space, **arguments)))
    fits = verb(batch)
    return of_fits([jax.tree.map(lambda x, k=k: x[k], fits) for k in range(3)])


def differentiate(on: Setting, **arguments: Any) -> Numbers:
    """A fit and the derivatives of its first parameter by the data and the wavevector."""

    def fitted(c2: Any, q: Any) -> tuple[Any, tt.NLSQResult]:
        data = tt.TwoTimeData(c2, on.data.t, q, on.data.phi)
        result = tt.fit_nlsq(on.model, data, on.space, **arguments)
        return result.values[0], result

    verb = jax.value_and_grad(fitted, argnums=(0, 1), has_aux=True)
    (_, result), (by_c2, by_q) = verb(jnp.asarray(on.data.c2), jnp.asarray(on.data.q))
    return with_values(of_fits([result]), by_c2[:, 0, 1::7], by_q)


def other_errors(on: Setting, **arguments: Any) -> Numbers:
    """Errors at known noise, bands of functions, a profile, and structure of residuals."""
    result = tt.fit_nlsq(on.model, on.data, on.space, **arguments)
    at = tt.optimum(on.model, on.data, on.space, result)
    covariance = tt.known_noise_covariance(at, pixels=1000.0, photons=np.inf)
    bands = tt.delta_bands(on.model, result, on.data.t).values()
    name = result.names[0]
    values = result.params[name] + result.uncertainties[name] * jnp.array([-2.0, 0.5, 1.0])
    profile = tt.profile(on.model, on.data, on.space, result, name, values)
    structure = tt.residual_structure(on.model, on.data, on.space, result)
    deviations = np.sqrt(np.diag(covariance))
    curves = [curve for band in bands for curve in (band.values, band.upper)]
    more = (*deviations, *curves, profile.height, structure.neighbours)
    return with_values(of_fits([result]), *more)


def sample(on: Setting, **arguments: Any) -> Numbers:
    """Draws of a posterior."""
    short = {"n_chains": 2, "n_warmup": 50, "n_samples": 75}
    post = tt.fit_cmc(on.model, on.data, on.space, key=jax.random.key(5), **short | arguments)
    draws = [np.asarray(x)[..., None] for x in post.samples.values()]
    draws += [np.asarray(post.contrast), np.asarray(post.offset), np.asarray(post.noise)[..., None]]
    diagnostics = [*post.r_hat.values(), *post.ess_bulk.values(), post.bfmi]
    return {
        "draws": np.concatenate(draws, axis=-1),
        "diagnostics": np.asarray(diagnostics),
        "count": post.divergences,
        "flags": f"converged {post.converged}",
        "ended": post.status.split(" (")[0],
    }


def of_fits(fits: Iterable[tt.NLSQResult]) -> Numbers:
    """The numbers of fits, one behind the other."""
    fits = list(fits)

    def joined(numbers: Callable[[tt.NLSQResult], Iterable[Any]]) -> np.ndarray:
        return np.array([number for one in fits for number in numbers(one)], float)

    def errors(one: tt.NLSQResult) -> Iterable[Any]:
        yield from (*one.uncertainties.values(), *one.uncertainties_iid.values())
        yield from (*np.asarray(one.contrast), *np.asarray(one.offset))

    def flags(one: tt.NLSQResult) -> str:
        bounds = ", ".join(sorted(one.at_bound)) or "no bound"
        null = len(one.null_directions)
        return f"converged {one.converged}, at {bounds}, dof {int(one.dof)}, {null} null directions"

    return {
        "chi2": joined(lambda one: [one.chi2]),
        "values": joined(lambda one: [one.params[name] for name in one.names]),
        "units": joined(lambda one: one.uncertainties.values()),
        "errors": joined(errors),
        "count": [int(one.n_steps) for one in fits],
        "flags": "; ".join(flags(one) for one in fits),
        "ended": "; ".join(one.status.split(" (")[0] for one in fits),
    }


def with_values(numbers: Numbers, *more: Any) -> Numbers:
    """Numbers with further arrays, each in units of its own largest element."""
    flat = [np.ravel(np.asarray(x, float)) for x in more]
    units = [np.full(x.size, np.nanmax(np.abs(x))) for x in flat]
    return numbers | {
        "values": np.concatenate([numbers["values"], *flat]),
        "units": np.concatenate([numbers["units"], *units]),
    }


@dataclasses.dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        law: Key of `LAWS`.
        name: What the table calls it, behind the law.
        verb: What is done.
        arguments: Arguments of the verb.
        data: What data are simulated.
        frames: Number of frames in `SPAN` seconds.
        angles: Number of angles.
        start: The parameters that vary, in place of those of the law.
        model: Arguments of the model.
        is_quick: Whether `--quick` solves it.
    """

    law: str
    name: str
    verb: Callable[..., Numbers]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: Callable[..., tt.TwoTimeData] = gaussian
    frames: int = 60
    angles: int = 3
    start: Mapping[str, Any] | None = None
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    is_quick: bool = False


KEY = jax.random.key(0)
TILED, HUBER, FOUR_STARTS = {"evaluator": "tiled"}, {"loss": "huber"}, {"starts": 4, "key": KEY}
EXACT = {"integration": "exact"}
ONE_ANGLE = {"D0": 1.5e4, "alpha": 0.0, "gamma_dot_t0": 3e-4, "beta": 0.0}
FEW_OF_TWO = {"D0_ref": 1.5e3, "D0_sample": 6e3, "v0": 370.0, "f0": 0.5}
BOUNDED = {"D0": {"value": 4e3, "min": 100.0, "max": 5.5e3}, "alpha": 0.0}
OWN_PRIOR = {
    "D0": {"value": 6e3, "prior": "truncated_normal", "prior_params": {"loc": 6e3, "scale": 2e3}},
    "alpha": -0.3,
}
INNER = {"scaling": "sampled", "noise": "marginal", "width": "none"}
SHARDS = {"n_shards": 4, "combine": "consensus"}

STATIC, FLOW, TWO = LAWS
PROBLEMS = (
    Problem(STATIC, "individual", fit, {"per_angle_mode": "individual"}, angles=6),
    Problem(STATIC, "averaged", fit, {"per_angle_mode": "averaged"}, angles=6),
    Problem(STATIC, "constant", fit, {"per_angle_mode": "constant"}, angles=6),
    Problem(STATIC, "fourier", fit, {"per_angle_mode": "fourier"}, angles=6),
    Problem(STATIC, "speckle", fit, data=speckle, is_quick=True),
    Problem(STATIC, "exact", fit, model=EXACT),
    Problem(STATIC, "all free", fit, start={"D0": 4e3, "alpha": 0.0, "D_offset": 10.0}),
    Problem(STATIC, "on a bound", fit, start=BOUNDED, is_quick=True),
    Problem(STATIC, "tiled", fit, TILED, frames=140),
    Problem(STATIC, "soft_l1", fit, {"loss": "soft_l1"}, outliers),
    Problem(STATIC, "huber", fit, HUBER, outliers, is_quick=True),
    Problem(STATIC, "estimated", fit_estimated, {"count": 2}, start=varying(STATIC)),
    Problem(STATIC, "each angle", fit_each_angle, is_quick=True),
    Problem(STATIC, "side by side", fit_together),
    Problem(STATIC, "derivatives", differentiate, {"tolerance": 1e-9}, frames=30),
    Problem(STATIC, "other errors", other_errors, data=speckle, angles=6),
    Problem(STATIC, "nuts", sample, data=speckle, is_quick=True),
    Problem(STATIC, "tempering", sample, {"width": "tempering"}, speckle),
    Problem(STATIC, "from the prior", sample, {"start": "prior", "width": "none"}, speckle),
    Problem(STATIC, "own prior", sample, INNER, speckle, start=OWN_PRIOR),
    Problem(STATIC, "consensus", sample, SHARDS, is_quick=True),
    Problem(STATIC, "gaussian", sample, SHARDS | {"combine": "gaussian", "n_strata": 3}),
    Problem(STATIC, "importance", sample, SHARDS | {"combine": "importance"}, is_quick=True),
    Problem(
        STATIC, "interleaved hmc", sample,
        {"sampler": "hmc", "step_size": 0.3, "n_leapfrog": 6, "adapt_step": False, "n_shards": 2,
         "strategy": "interleaved", "prior_from_fit": 3.0}, one_sigma,
    ),
    Problem(FLOW, "individual", fit, {"per_angle_mode": "individual"}, angles=6),
    Problem(FLOW, "fourier", fit, {"per_angle_mode": "fourier"}, angles=6),
    Problem(FLOW, "masked", fit, data=masked, is_quick=True),
    Problem(FLOW, "homodyne", fit, model={"shear_convention": "homodyne"}),
    Problem(FLOW, "640 frames", fit, frames=640, angles=1, start=ONE_ANGLE),
    Problem(FLOW, "on a mesh", fit, {"devices": jax.devices()}),
    Problem(FLOW, "huber", fit, HUBER | {"loss_scale": 1.5}, outliers),
    Problem(FLOW, "4 starts", fit, FOUR_STARTS),
    Problem(FLOW, "2 steps only", fit, {"max_steps": 2}),
    Problem(FLOW, "estimated", fit_estimated, {"count": 2}, start=varying(FLOW)),
    Problem(FLOW, "nuts", sample, data=speckle),
    Problem(TWO, "constant", fit, {"per_angle_mode": "constant"}, angles=6),
    Problem(TWO, "fourier", fit, {"per_angle_mode": "fourier"}, angles=6),
    Problem(TWO, "sigma of each", fit, data=weighted, is_quick=True),
    Problem(TWO, "exact", fit, model=EXACT),
    Problem(TWO, "tiled", fit, TILED | {"tile": 16}, is_quick=True),
    Problem(TWO, "factored", fit, {"evaluator": "factored"}, is_quick=True),
    Problem(TWO, "640 frames", fit, TILED, frames=640, angles=1, start=FEW_OF_TWO),
    Problem(TWO, "4 starts", fit, FOUR_STARTS),
    Problem(TWO, "estimated", fit_estimated, {"count": 2}, start=varying(TWO)),
    Problem(TWO, "nuts", sample, angles=1, start=FEW_OF_TWO),
)  # fmt: skip


def set_up(problem: Problem) -> Setting:
    """Simulate the data of a problem, and say what varies."""
    law = LAWS[problem.law]
    model = law.model(**problem.model)
    axes = {
        "t": jnp.arange(1, problem.frames + 1) * (SPAN / problem.frames),
        "q": law.q,
        "phi": jnp.linspace(-60.0, 90.0, problem.angles),
    }
    data = problem.data(model, jnp.asarray(list(law.truth.values())), axes)
    start = law.start if problem.start is None else problem.start
    parameters: dict[str, Any] = {
        name: {"value": value, "vary": False} for name, value in law.truth.items()
    }
    for name, value in start.items():
        parameters[name] = (value if isinstance(value, dict) else {"value": value}) | FREE
    space = tt.ParameterSpace.from_config({"analysis_mode": problem.law, "parameters": parameters})
    return Setting(model, data, space)


def save(path: Path, *, quick: bool) -> None:
    """Solve the problems and keep their numbers; print the processor time that each took.

    Args:
        path: The file that is written.
        quick: Whether a few of them are enough.
    """
    flags = os.environ["XLA_FLAGS"]
    versions = f"twotime {tt.__version__}, jax {jax.__version__}, XLA_FLAGS={flags}"
    kept: dict[str, Any] = {"versions": np.asarray(versions), "quick": np.asarray(quick)}
    law = STATIC
    for problem in (p for p in PROBLEMS if p.is_quick or not quick):
        if problem.law != law:
            jax.clear_caches()  # compiled code fills the memory
        law, begun = problem.law, time.process_time()
        try:
            on = set_up(problem)
            numbers = problem.verb(on, **problem.arguments)
            numbers["data"] = np.ravel(np.asarray(on.data.c2))[:: on.data.c2.size // 97]
        except Exception as error:  # the other problems are solved all the same
            traceback.print_exc()
            numbers = {"flags": f"raised {type(error).__name__}", "ended": str(error)}
        name = f"{problem.law}, {problem.name}"
        kept |= {f"{name}/{field}": np.asarray(x) for field, x in numbers.items()}
        seconds = time.process_time() - begun
        print(f"{name:30}{seconds:6.1f} s  {numbers['ended'][:60]}", flush=True)
    np.savez_compressed(path, **kept)


def read(path: Path) -> tuple[dict[str, Numbers], str, bool]:
    """The numbers of each problem in a file, what they were made with, and whether quickly."""
    answers: dict[str, Numbers] = {}
    with np.load(path) as file:
        for key in file.files:
            name, _, field = key.partition("/")
            if field:
                answers.setdefault(name, {})[field] = file[key]
        return answers, str(file["versions"]), bool(file["quick"])


def difference(before: np.ndarray, after: np.ndarray, units: np.ndarray) -> float:
    """Largest difference of two arrays in some units; NaN in both counts as equal.

    Args:
        before: The first array.
        after: The second.
        units: What counts as 1; where it is no positive number, the size of the first does.
    """
    if before.shape != after.shape:
        return np.inf
    size = np.maximum(np.abs(before), np.finfo(float).tiny)
    units = np.where(np.isfinite(units) & (units > 0), units, size)
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.where(same, 0.0, np.abs(after - before) / units)
    return float(np.max(np.where(np.isnan(apart), np.inf, apart), initial=0.0))


def mean_and_error(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over chains and draws, and its Monte Carlo error from batch means."""
    _, count, columns = draws.shape
    length = int(count**0.5)
    batches = draws[:, : count // length * length].reshape(-1, length, columns).mean(axis=1)
    return draws.mean(axis=(0, 1)), batches.std(axis=0, ddof=1) / len(batches) ** 0.5


def other_draws(before: np.ndarray, after: np.ndarray, apart: float) -> str:
    """In words whether draws that differ are of the same posterior.

    Args:
        before: Draws of one version.
        after: Draws of the other.
        apart: Their largest difference [standard deviations].
    """
    errors = []
    center = before.mean(axis=(0, 1))
    for power in (1, 2):
        old, new = (mean_and_error((draws - center) ** power) for draws in (before, after))
        errors.append(difference(old[0], new[0], np.hypot(old[1], new[1])))
    verdict = "other draws of the same posterior" if apart > 1e-3 else "the same draws, but rounded"
    if max(errors) > SAME_POSTERIOR:
        verdict = "ANOTHER POSTERIOR"
    return (
        f"{verdict}: means differ by up to {errors[0]:.1f}, variances by up to {errors[1]:.1f} "
        "Monte Carlo errors"
    )


def compare_problem(before: Numbers, after: Numbers) -> tuple[dict[str, float], str, list[str]]:
    """Two answers to a problem: how far apart, how their ends compare, and remarks.

    Args:
        before: Numbers of one version.
        after: Numbers of the other.
    """
    figures, remarks = {}, []
    units = {field: field for field in ("chi2", "errors", "diagnostics")} | {"values": "units"}
    for field, unit in units.items():
        if field in before and field in after:
            column = "parameters" if field == "values" else field
            figures[column] = difference(before[field], after[field], before[unit])
    if "draws" in before and "draws" in after:
        old, new = before["draws"], after["draws"]
        figures["draws"] = difference(old, new, np.broadcast_to(old.std(axis=(0, 1)), old.shape))
        if figures["draws"] > LIMITS["draws"] and old.shape == new.shape:
            remarks.append(other_draws(old, new, figures["draws"]))
    if "data" in before and "data" in after:
        apart = difference(before["data"], after["data"], np.full_like(before["data"], NOISE))
        if apart > SAME_DATA:
            remarks.append(f"the data differ by up to {apart:.1e} of their noise")
    ended = "same"
    for field, verdict in (("ended", "reworded"), ("count", "recounted"), ("flags", "DIFFERS")):
        old, new = (numbers.get(field, np.asarray("nothing")) for numbers in (before, after))
        if not np.array_equal(old, new):
            ended = verdict
            remarks.append(f"{field} was {old}, is {new}")
    if str(after["flags"]).startswith("raised"):
        ended = "DIFFERS"
        remarks.append(f"{after['flags']}: {after['ended']}")
    return figures, ended, remarks


def compare(before: Path, after: Path) -> int:
    """Print a table of differences; 1 if one is beyond its limit or an answer is missing.

    Args:
        before: A file of `save`.
        after: Another one.
    """
    (old, *_), (new, _, is_quick) = found = read(before), read(after)
    for versions in (answers[1] for answers in found):
        print(versions)
    print(f"\n{'problem':30}" + "".join(f"{column:>12}" for column in (*LIMITS, "ended")))
    failed, remarks = [], []
    for name in (name for name in old if name in new):
        figures, ended, more = compare_problem(old[name], new[name])
        cells = [f"{figures[column]:.1e}" if column in figures else "" for column in LIMITS]
        print(f"{name:30}" + "".join(f"{cell:>12}" for cell in (*cells, ended)))
        remarks += [f"{name}: {remark}" for remark in more]
        if ended == "DIFFERS" or any(not x <= LIMITS[column] for column, x in figures.items()):
            failed.append(name)
    missing = sorted(new.keys() - old.keys() | (set() if is_quick else old.keys() - new.keys()))
    print(f"{'at most':30}" + "".join(f"{limit:12.1e}" for limit in LIMITS.values()))
    print("", *remarks, sep="\n")
    print(f"Beyond the limits: {'; '.join(failed) or 'none'}.")
    if missing:
        print(f"In one file only: {'; '.join(missing)}.")
    return int(bool(failed or missing))


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("save", help="solve the problems and keep their numbers")
    one.add_argument("file", type=Path)
    one.add_argument("--quick", action="store_true", help="solve a few of them")
    two = commands.add_parser("compare", help="print how far two files are apart")
    two.add_argument("before", type=Path)
    two.add_argument("after", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "compare":
        return compare(arguments.before, arguments.after)
    save(arguments.file, quick=arguments.quick)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
