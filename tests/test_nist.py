"""Nonlinear regression problems of the NIST Statistical Reference Datasets, by the fit's solver.

Data, starts and certified values: NIST/ITL StRD, https://www.itl.nist.gov/div898/strd/nls (public
domain). Digits are -log10 of the relative error of the worst parameter, 11 at most.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from twotime.solver import RESULTS, BoxLevenbergMarquardt, Quadratic, outcome


class Problem(NamedTuple):
    model: object
    x: list
    y: list
    starts: tuple
    certified: tuple
    rss: float
    is_positive: bool = False


MISRA_X = [
    77.6,
    114.9,
    141.1,
    190.8,
    239.9,
    289.0,
    332.8,
    378.4,
    434.8,
    477.3,
    536.8,
    593.1,
    689.1,
    760.0,
]  # noqa: E501
MISRA_Y = [
    10.07,
    14.73,
    17.94,
    23.93,
    29.61,
    35.18,
    40.02,
    44.82,
    50.76,
    55.05,
    61.01,
    66.40,
    75.47,
    81.78,
]  # noqa: E501
exp = jnp.exp
PROBLEMS = {
    "Misra1a": Problem(
        lambda b, x: b[0] * (1 - exp(-b[1] * x)), MISRA_X, MISRA_Y,
        ((500, 0.0001), (250, 0.0005)),
        (2.3894212918e2, 5.5015643181e-4), 1.2455138894e-1,
    ),
    "Misra1b": Problem(
        lambda b, x: b[0] * (1 - (1 + b[1] * x / 2) ** -2), MISRA_X, MISRA_Y,
        ((500, 0.0001), (300, 0.0002)),
        (3.3799746163e2, 3.9039091287e-4), 7.5464681533e-2,
    ),
    "Misra1c": Problem(
        lambda b, x: b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5), MISRA_X, MISRA_Y,
        ((500, 0.0001), (600, 0.0002)),
        (6.3642725809e2, 2.0813627256e-4), 4.0966836971e-2,
    ),
    "Misra1d": Problem(
        lambda b, x: b[0] * b[1] * x / (1 + b[1] * x), MISRA_X, MISRA_Y,
        ((500, 0.0001), (450, 0.0003)),
        (4.3736970754e2, 3.0227324449e-4), 5.6419295283e-2,
    ),
    "DanWood": Problem(
        lambda b, x: b[0] * x ** b[1],
        [1.309, 1.471, 1.490, 1.565, 1.611, 1.680],
        [2.138, 3.421, 3.597, 4.340, 4.882, 5.660],
        ((1, 5), (0.7, 4)),
        (7.6886226176e-1, 3.8604055871), 4.3173084083e-3,
    ),
    "BoxBOD": Problem(
        lambda b, x: b[0] * (1 - exp(-b[1] * x)),
        [1, 2, 3, 5, 7, 10], [109, 149, 149, 191, 213, 224],
        ((1, 1), (100, 0.75)),
        (2.1380940889e2, 5.4723748542e-1), 1.1680088766e3,
    ),
    "Rat42": Problem(
        lambda b, x: b[0] / (1 + exp(b[1] - b[2] * x)),
        [9, 14, 21, 28, 42, 57, 63, 70, 79],
        [8.93, 10.80, 18.59, 22.33, 39.35, 56.11, 61.73, 64.62, 67.08],
        ((100, 1, 0.1), (75, 2.5, 0.07)),
        (7.2462237576e1, 2.6180768402, 6.7359200066e-2), 8.0565229338,
    ),
    "Rat43": Problem(
        lambda b, x: b[0] / (1 + exp(b[1] - b[2] * x)) ** (1 / b[3]),
        list(range(1, 16)),
        [16.08, 33.83, 65.80, 97.20, 191.55, 326.20, 386.87, 520.53, 590.03, 651.92,
         724.93, 699.56, 689.96, 637.56, 717.41],
        ((100, 10, 1, 1), (700, 5, 0.75, 1.3)),
        (6.9964151270e2, 5.2771253025, 7.5962938329e-1, 1.2792483859), 8.7864049080e3,
        is_positive=True,
    ),
    "MGH09": Problem(
        lambda b, x: b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3]),
        [4, 2, 1, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625],
        [0.1957, 0.1947, 0.1735, 0.16, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246],
        ((25, 39, 41.5, 39), (0.25, 0.39, 0.415, 0.39)),
        (1.9280693458e-1, 1.9128232873e-1, 1.2305650693e-1, 1.3606233068e-1), 3.0750560385e-4,
    ),
    "MGH10": Problem(
        lambda b, x: b[0] * exp(b[1] / (x + b[2])),
        list(range(50, 126, 5)),
        [34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147,
         4427, 3820, 3307, 2872],
        ((2, 400000, 25000), (0.02, 4000, 250)),
        (5.6096364710e-3, 6.1813463463e3, 3.4522363462e2), 8.7945855171e1,
    ),
    "MGH17": Problem(
        lambda b, x: b[0] + b[1] * exp(-x * b[3]) + b[2] * exp(-x * b[4]),
        list(range(0, 321, 10)),
        [0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751, 0.718,
         0.685, 0.658, 0.628, 0.603, 0.580, 0.558, 0.538, 0.522, 0.506, 0.490, 0.478, 0.467,
         0.457, 0.448, 0.438, 0.431, 0.424, 0.420, 0.414, 0.411, 0.406],
        ((50, 150, -100, 1, 2), (0.5, 1.5, -1, 0.01, 0.02)),
        (3.7541005211e-1, 1.9358469127, -1.4646871366, 1.2867534640e-2, 2.2122699662e-2),
        5.4648946975e-5,
    ),
    "Eckerle4": Problem(
        lambda b, x: b[0] / b[1] * exp(-0.5 * ((x - b[2]) / b[1]) ** 2),
        [400, 405, 410, 415, 420, 425, 430, 435, *np.arange(436.5, 465.1, 1.5),
         470, 475, 480, 485, 490, 495, 500],
        [0.0001575, 0.0001699, 0.0002350, 0.0003102, 0.0004917, 0.0008710, 0.0017418, 0.0046400,
         0.0065895, 0.0097302, 0.0149002, 0.0237310, 0.0401683, 0.0712559, 0.1264458, 0.2073413,
         0.2902366, 0.3445623, 0.3698049, 0.3668534, 0.3106727, 0.2078154, 0.1164354, 0.0616764,
         0.0337200, 0.0194023, 0.0117831, 0.0074357, 0.0022732, 0.0008800, 0.0004579, 0.0002345,
         0.0001586, 0.0001143, 0.0000710],
        ((1, 10, 500), (1.5, 5, 450)),
        (1.5543827178, 4.0888321754, 4.5154121844e2), 1.4635887487e-3,
    ),
    "Thurber": Problem(
        lambda b, x: (b[0] + b[1] * x + b[2] * x**2 + b[3] * x**3)
        / (1 + b[4] * x + b[5] * x**2 + b[6] * x**3),
        [-3.067, -2.981, -2.921, -2.912, -2.840, -2.797, -2.702, -2.699, -2.633, -2.481, -2.363,
         -2.322, -1.501, -1.460, -1.274, -1.212, -1.100, -1.046, -0.915, -0.714, -0.566, -0.545,
         -0.400, -0.309, -0.109, -0.103, 0.010, 0.119, 0.377, 0.790, 0.963, 1.006, 1.115, 1.572,
         1.841, 2.047, 2.200],
        [80.574, 84.248, 87.264, 87.195, 89.076, 89.608, 89.868, 90.101, 92.405, 95.854, 100.696,
         101.060, 401.672, 390.724, 567.534, 635.316, 733.054, 759.087, 894.206, 990.785, 1090.109,
         1080.914, 1122.643, 1178.351, 1260.531, 1273.514, 1288.339, 1327.543, 1353.863, 1414.509,
         1425.208, 1421.384, 1442.962, 1464.350, 1468.705, 1447.894, 1457.628],
        ((1000, 1000, 400, 40, 0.7, 0.3, 0.03), (1300, 1500, 500, 75, 1, 0.4, 0.05)),
        (1.2881396800e3, 1.4910792535e3, 5.8323836877e2, 7.5416644291e1, 9.6629502864e-1,
         3.9797285797e-1, 4.9727297349e-2),
        5.6427082397e3,
    ),
}  # fmt: skip


def residual(problem, b):
    return problem.model(b, jnp.asarray(problem.x, float)) - jnp.asarray(problem.y, float)


def solve(problem):
    """From both starts, by the solver of `fit_nlsq`, each parameter in units of its start."""

    def one(start):
        unit = jnp.abs(start)

        def fn(y, _):
            r, j = residual(problem, y * unit), jax.jacfwd(lambda y: residual(problem, y * unit))(y)
            value = 0.5 * r @ r
            noise = 1e-15 * jnp.abs(r) @ jnp.abs(jnp.asarray(problem.y, float))
            return value, Quadratic(j.T @ r, j.T @ j, 2 * value / r.size, noise, None)

        upper = jnp.full(unit.shape, 1e12)
        lower = jnp.zeros_like(upper) if problem.is_positive else -upper
        solver = BoxLevenbergMarquardt(lower, upper, tolerance=1e-7)
        s = optx.minimise(fn, solver, start / unit, has_aux=True, max_steps=2000, throw=False)
        return s.value * unit, outcome(s) == RESULTS.successful, s.stats["num_steps"]

    return jax.jit(jax.vmap(one))(jnp.asarray(problem.starts, float))


def digits(problem, found):
    want = np.asarray(problem.certified)
    return float(np.min(-np.log10(np.maximum(np.abs(found / want - 1), 1e-11))))


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_data_are_those_of_the_certified_residual(name):
    problem = PROBLEMS[name]
    rss = float(jnp.sum(residual(problem, jnp.asarray(problem.certified)) ** 2))
    assert rss == pytest.approx(problem.rss, rel=1e-8)


@pytest.mark.parametrize("name", PROBLEMS)
def test_certified_digits(name):
    problem = PROBLEMS[name]
    for which, (found, converged, steps) in enumerate(zip(*solve(problem), strict=True), start=1):
        matched = digits(problem, found)
        print(f"{name:9s} start {which}: {matched:4.1f} digits in {int(steps):4d} evaluations")
        assert bool(converged) and matched >= 7
