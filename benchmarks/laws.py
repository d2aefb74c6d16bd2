"""Composed laws on simulated speckle: model-free J(t), and static scattering.

python benchmarks/laws.py step 50       # J falls by 30 in a step: bands of Spline(knots=8)
python benchmarks/laws.py static 50     # 10 % static scattering: with and without the component
python benchmarks/laws.py three 20      # two that move and a static one
python benchmarks/laws.py random 200    # right laws of drawn parts that check_model rejects
"""

import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from run import TRUTH, best_time

import twotime as tt
from twotime.compilation import compiled
from twotime.gram import choose_evaluator
from twotime.gram.problem import evaluate, make_problem
from twotime.testing import LawBroken, check_model
from twotime.testing.strategies import laws

jax.config.update("jax_enable_x64", True)

T, Q = 0.1 * jnp.arange(1, 101), 0.005
STARTS = 4  # of three components; the likeliest start is near another optimum once in twenty
STILL = tt.Component("still", None)


def speckle(law, params, phi, key, q=Q, t=T, pixels=20_000, contrast=0.3):
    """A movie of real speckle noise."""
    return tt.simulate_speckle(
        law, params, t=t, q=q, phi=jnp.asarray(phi), contrast=contrast, n_pixels=pixels,
        key=jax.random.key(key),
    )  # fmt: skip


def fitted(law, data, fixed=(), **options):
    """A fit from starts that the data suggest."""
    space = tt.ParameterSpace.of(law).with_vary(dict.fromkeys(fixed, False))
    start = tt.estimate_starts(law, data, space)[0]
    return tt.fit_nlsq(law, data, start, **options)


def step(count: int) -> None:
    """Share of times at which the 95 % band covers J, and how often the power law is rejected."""
    spline, power = tt.StaticDiffusion(transport=tt.Spline(knots=8)), tt.StaticDiffusion()
    truth = tt.StaticDiffusion(transport=tt.Spline(knots=30))
    log_rate = np.log(6e4) - np.log(30.0) / (1 + np.exp(-(np.linspace(0, 10, 30) - 5.0) / 1.0))
    params = jnp.asarray([log_rate[0], *np.diff(log_rate)])
    true = np.asarray(truth.functions(params, t=T)["J"].values)
    covered, rejected = [], []
    for k in range(count):
        data = speckle(truth, params, [0.0], k, q=0.012)
        fit = fitted(spline, data, priors=True)
        band = tt.delta_bands(spline, fit, data.t)["J"]
        value, low = np.asarray(band.values), np.asarray(band.lower)
        deviation = 1 - low / value
        covered.append(np.mean(np.abs(np.log(true / value)) <= 1.96 * deviation))
        rejected.append(not fitted(power, data).structure.is_right)
        print(k, bool(fit.converged), f"covered {covered[-1]:.2f}, mean {np.mean(covered):.3f};",
              f"spline right {fit.structure.is_right},",
              f"power law rejected {np.mean(rejected):.2f}", flush=True)  # fmt: skip


def seconds_of_one_iteration(law, params) -> float:
    """Shortest of several Gauss-Newton iterations on 3 x 1000 frames, compiled as fits are."""
    t = 0.01 * jnp.arange(1, 1001)
    data = tt.simulate(law, params, t=t, q=Q, phi=jnp.array([0.0, 40.0, 80.0]), contrast=0.3,
                       offset=1.0, noise=0.01, key=jax.random.key(0))  # fmt: skip
    data, evaluator = choose_evaluator(law, data, "auto")
    space = tt.ParameterSpace.of(law).with_values(dict(zip(law.names, params, strict=True)))
    problem = eqx.filter_jit(make_problem)(law, data, space, "averaged", evaluator)
    y, step = problem.start[np.flatnonzero(problem.varying)] / problem.scale, compiled(evaluate)
    return best_time(lambda: jax.block_until_ready(step(y, problem)))


def three(count: int) -> None:
    """Two that move and a static one: deviations of each parameter from the truth.

    The law is the same with the two exchanged; they are named by their velocity.
    """
    moving = [tt.Component(name, tt.Constant(), velocity=tt.Constant()) for name in "ab"]
    law = tt.Components((STILL, *moving))
    truth = {"D0_a": 2e4, "D0_b": 5e3, "v0_a": 500.0, "v0_b": 1800.0, "log_x_a": 0.3,
             "log_x_b": 0.5, "phi0_a": 0.0, "phi0_b": 0.0}  # fmt: skip
    params = jnp.asarray([truth[n] for n in law.names])
    took = seconds_of_one_iteration(law, params)
    # As fast as the faster of the two: how many frames stand for all depends on it.
    two = dict(zip(tt.TwoComponent().names, TRUTH["two_component"], strict=True))
    two |= {"v0": truth["v0_b"], "D0_sample": truth["D0_b"]}
    ratio = took / seconds_of_one_iteration(tt.TwoComponent(), jnp.asarray([*two.values()]))
    print(f"one iteration {1e3 * took:.1f} ms, {ratio:.2f} of two components")
    far = []
    for k in range(count):
        data = speckle(law, params, [0.0, 40.0, 80.0], k)
        starts = tt.estimate_starts(law, data, tt.ParameterSpace.of(law), count=STARTS)
        fit = min((tt.fit_nlsq(law, data, start) for start in starts), key=lambda fit: fit.chi2)
        other = str.maketrans("ab", "ba") if fit.params["v0_a"] > fit.params["v0_b"] else {}
        asked = {n: truth[n[:-1] + n[-1].translate(other)] for n in fit.names}
        away = [(fit.params[n] - asked[n]) / fit.uncertainties[n] for n in fit.names]
        far += [abs(x) > 2.5 for x in away]
        print(k, bool(fit.converged), fit.evaluator, np.round(away, 2), flush=True)
    print(f"beyond 2.5 deviations {sum(far)} of {len(far)}")


def static(count: int) -> None:
    """10 % static scattering: share of parameters within one deviation, and what is flagged.

    Records are long enough, of pixels enough, to tell it from the offset and from another rate.
    """
    q, t, pixels, contrast = 0.012, 0.1 * jnp.arange(1, 301), 150_000, 0.5
    share = {"log_x_moving": float(np.log(9.0))}
    cases = {
        "static": (
            (tt.Component("moving", tt.Constant()),), {"D0_moving": 2e4} | share,
            tt.StaticDiffusion(transport=tt.Constant()), (), [0.0],
        ),
        "laminar": (
            (tt.Component("moving", tt.Constant(), shear=tt.Constant()),),
            {"D0_moving": 2e4, "gamma_dot_t0_moving": 1.6e-4, "phi0_moving": 3.0} | share,
            tt.LaminarFlow(gap=2e6, transport=tt.Constant(), shear=tt.Constant()),
            (),
            [0.0, 40.0, 80.0],
        ),
        # A second component that decays more slowly than it drifts, for a static part is taken
        # for a slower one of two that do not.
        "two components": (
            (tt.Component("bulk", tt.Constant()),
             tt.Component("band", tt.Constant(), velocity=tt.Constant())),
            {"D0_bulk": 2e4, "D0_band": 5e3, "v0_band": 400.0, "log_x_bulk": float(np.log(3.6)),
             "log_x_band": float(np.log(5.4)), "phi0_band": 0.0},
            tt.Components((tt.Component("bulk", tt.Constant()),
                           tt.Component("band", tt.Constant(), velocity=tt.Constant()))),
            (), [0.0, 40.0, 80.0],
        ),
    }  # fmt: skip
    for name, (moving, truth, without, fixed, phi) in cases.items():
        law, inside, flagged, said = tt.Components((STILL, *moving)), [], [], []
        params = jnp.asarray([truth[n] for n in law.names])
        for k in range(count):
            data = speckle(law, params, phi, k, q, t, pixels, contrast)
            fit = fitted(law, data)
            said.append([fit.uncertainties[n] for n in fit.names if n.startswith("log_x")])
            inside += [abs(fit.params[n] - truth[n]) < fit.uncertainties[n] for n in fit.names]
            flagged.append(not fitted(without, data, fixed).structure.is_right)
            if k % 5 == 4:
                print(name, k + 1, f"{np.mean(inside):.2f} {np.mean(flagged):.2f}", flush=True)
        print(name, f"within one deviation {np.mean(inside):.2f} of {len(inside)},",
              f"logarithm of shares ± {np.round(np.median(said, axis=0), 2)},",
              f"without the component flagged {np.mean(flagged):.2f}", flush=True)  # fmt: skip


def random(count: int) -> None:
    """How many right laws, composed of drawn parts, are rejected."""
    rejected = []

    @settings(
        max_examples=count, derandomize=True, database=None, deadline=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(laws())
    def each(law: tt.AbstractTwoTimeModel) -> None:
        seen.append(law)
        jax.clear_caches()  # hundreds of laws compiled are more than one process may keep
        try:
            check_model(law, examples=2)
        except LawBroken as exc:
            rejected.append(exc)
            print(law, exc, flush=True)
        if len(seen) % 10 == 0:
            print(len(seen), "laws,", len(rejected), "rejected", flush=True)

    seen: list[tt.AbstractTwoTimeModel] = []
    each()
    print(f"{len(rejected)} of {len(seen)} rejected")


if __name__ == "__main__":
    begun = time.time()
    {"step": step, "three": three, "static": static, "random": random}[sys.argv[1]](
        int(sys.argv[2])
    )
    print(f"{time.time() - begun:.0f} s")
