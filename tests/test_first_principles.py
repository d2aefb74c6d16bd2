"""Particles moved by hand, their fields and intensities, against the models' closed forms.

Nothing of a model goes into the particles: positions in the plane of the detector, random
steps, a velocity that grows linearly across the gap. Errors come from the scatter over
independent realisations with the full covariance between the points, which share frames.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import chi2

import twotime as tt
from twotime.config.parameter_registry import REGISTRIES

pytestmark = pytest.mark.slow

PARTICLES = 64
REALISATIONS = 32000
AT_ONCE = 2000
T = 0.1 * np.arange(1, 11)
ROW, COLUMN = np.triu_indices(len(T), 1)
Q = 0.003
GAP = 2.0e6
PHI0 = 8.0


def direction(degrees):
    return np.array([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))])


def integrals(rate):
    """Integral of a rate over each step between frames, by quadrature."""
    return np.array([quad(rate, a, b)[0] for a, b in zip(T[:-1], T[1:], strict=True)])


def walk(rng, n, variance):
    """Positions (realisation, particle, frame, 2): uniform at first, then Gaussian steps."""
    start = rng.uniform(0, 2 * np.pi / Q * 1000, (n, PARTICLES, 1, 2))
    steps = rng.normal(size=(n, PARTICLES, len(T) - 1, 2)) * np.sqrt(variance)[:, None]
    return np.concatenate([start, start + np.cumsum(steps, axis=2)], axis=2)


def sheared(rng, n, variance, strain):
    """Walkers carried along the flow by a velocity proportional to their place in the gap."""
    height = rng.uniform(-GAP / 2, GAP / 2, (n, PARTICLES, 1, 1))
    carried = np.concatenate([[0.0], np.cumsum(strain)])
    return walk(rng, n, variance) + height * carried[:, None] * direction(PHI0)


def drifting(rng, n, variance, way):
    """Walkers carried along the flow, all by the same way."""
    carried = np.concatenate([[0.0], np.cumsum(way)])
    return walk(rng, n, variance) + carried[:, None] * direction(PHI0)


def amplitude(positions, phi):
    """Field (realisation, frame) that a detector at an angle sees, of mean intensity 1."""
    phase = Q * positions @ direction(phi)
    return np.exp(1j * phase).sum(axis=1) / np.sqrt(PARTICLES)


def products(field_of):
    """I(t1) I(t2) of every realisation and pair of frames; `field_of` makes some realisations."""
    intensity = np.concatenate(
        [np.abs(field_of(AT_ONCE)) ** 2 for _ in range(REALISATIONS // AT_ONCE)]
    )
    return intensity[:, ROW] * intensity[:, COLUMN]


def deviation(measured, expected):
    """Mean deviation of the products and the inverse of its covariance."""
    precision = np.linalg.inv(np.cov(measured.T) / len(measured))
    return measured.mean(axis=0) - expected, precision


def chi_squared(measured, expected):
    off, precision = deviation(measured, expected)
    return off @ precision @ off


def sigmas(measured, right, wrong):
    """How far the data are from `wrong` along the way from there to `right`, in its own error."""
    off, precision = deviation(measured, wrong)
    way = right - wrong
    return way @ precision @ off / np.sqrt(way @ precision @ way)


def agrees(value, points):
    """Whether a chi-squared is one that chance gives in all but 1 of 1000 cases, either side."""
    return chi2.ppf(1e-3, points) < value < chi2.ppf(1 - 1e-3, points)


def model_c(model, params, phi):
    c = tt.correlation(model, jnp.asarray(params), t=jnp.asarray(T), q=Q, phi=jnp.asarray([phi]))
    return np.asarray(c)[0, ROW, COLUMN]


def test_brownian_motion_with_coefficient_d_has_j_equal_2d():
    rng = np.random.default_rng(1)
    diffusion = 4.0e4
    variance = np.full(len(T) - 1, 2 * diffusion * (T[1] - T[0]))
    measured = products(lambda n: amplitude(walk(rng, n, variance), 30.0))

    def expected(transport):
        c = model_c(tt.StaticDiffusion(), [transport, 0.0, 0.0], 30.0)
        return 1 + (1 - 1 / PARTICLES) * c

    value = chi_squared(measured, expected(2 * diffusion))
    away = sigmas(measured, expected(2 * diffusion), expected(diffusion))
    print(f"J = 2D: chi2 per point {value / len(ROW):.2f}; J = D rejected by {away:.0f} sigma")
    assert agrees(value, len(ROW))
    assert away > 20


@pytest.mark.parametrize("phi", [20.0, 70.0, 98.0])
def test_shear_follows_the_published_law_and_not_the_other(phi):
    rng = np.random.default_rng(int(phi))
    theta = [6.0e4, -0.4, 1.0e4, 2.5e-3, 0.5, 5.0e-4, PHI0]
    variance = integrals(lambda s: theta[0] * s ** theta[1] + theta[2])
    strain = integrals(lambda s: theta[3] * s ** theta[4] + theta[5])
    measured = products(lambda n: amplitude(sheared(rng, n, variance, strain), phi))

    def expected(convention):
        model = tt.LaminarFlow(gap=GAP, shear_convention=convention, integration="exact")
        return 1 + (1 - 1 / PARTICLES) * model_c(model, theta, phi)

    value = chi_squared(measured, expected("published"))
    print(f"phi = {phi}: published chi2 per point {value / len(ROW):.2f}", end="")
    assert agrees(value, len(ROW))
    if phi == 98.0:  # across the flow the two laws are the same
        np.testing.assert_allclose(expected("homodyne"), expected("published"), rtol=1e-12)
        return
    other = chi_squared(measured, expected("homodyne"))
    away = sigmas(measured, expected("published"), expected("homodyne"))
    print(f", homodyne {other / len(ROW):.1f}, rejected by {away:.0f} sigma")
    assert away > 20


@pytest.mark.parametrize("phi", [12.0, -55.0])
def test_two_populations_with_drifting_fractions(phi):
    rng = np.random.default_rng(5)
    theta = [2e4, 0.0, 2e3, 6e4, 0.3, 5e3, 1.2e3, -0.3, 200.0, 0.5, -0.9, 0.2, 0.2, PHI0]
    still = integrals(lambda s: theta[0] + theta[2])
    moving = integrals(lambda s: theta[3] * s ** theta[4] + theta[5])
    way = integrals(lambda s: theta[6] * s ** theta[7] + theta[8])
    x = theta[9] * np.exp(theta[10] * (T - theta[11])) + theta[12]

    def both(n):
        reference = amplitude(walk(rng, n, still), phi)
        sample = amplitude(drifting(rng, n, moving, way), phi)
        return ((1 - x) * reference + x * sample) / np.sqrt(x**2 + (1 - x) ** 2)

    measured = products(both)
    # A finite number of particles takes their own squares out of the products.
    norm = x**2 + (1 - x) ** 2
    decay_r = np.exp(-(Q**2) * np.concatenate([[0.0], np.cumsum(still)]))
    decay_s = np.exp(-(Q**2) * np.concatenate([[0.0], np.cumsum(moving)]))
    own = ((1 - x[ROW]) * (1 - x[COLUMN])) ** 2 * decay_r[COLUMN] / decay_r[ROW]
    own += (x[ROW] * x[COLUMN]) ** 2 * decay_s[COLUMN] / decay_s[ROW]
    own /= norm[ROW] * norm[COLUMN] * PARTICLES

    def expected(parameters):
        return 1 + model_c(tt.TwoComponent(integration="exact"), parameters, phi) - own

    value = chi_squared(measured, expected(theta))
    turned = [*theta[:13], -PHI0]
    away = sigmas(measured, expected(theta), expected(turned))
    print(f"phi = {phi}: chi2 per point {value / len(ROW):.2f}; phi + phi0 off {away:.0f} sigma")
    assert agrees(value, len(ROW))
    assert away > 4


@pytest.mark.long
def test_the_other_convention_fits_a_shear_rate_2_2_times_too_large():
    t = jnp.asarray(0.1 * np.arange(1, 41))
    phi = jnp.asarray([0.0, 45.0, 90.0])
    truth = {"D0": 2.0e4, "alpha": 0.0, "D_offset": 0.0, "gamma_dot_t0": 1.2e-4}
    fixed = {"beta": 0.0, "gamma_dot_t_offset": 0.0, "phi0": 0.0}
    right = tt.LaminarFlow(gap=GAP)
    theta = jnp.asarray(list((truth | fixed).values()))
    data = tt.simulate(
        right, theta, t=t, q=Q, phi=phi, contrast=0.3, offset=1.0, noise=1e-3,
        key=jax.random.key(0),
    )  # fmt: skip
    registry = REGISTRIES["laminar_flow"]
    space = tt.ParameterSpace.from_registry(right.names, registry)
    space = space.with_values(truth | fixed | {"D0": 1.5e4, "gamma_dot_t0": 2e-4})
    space = space.with_vary(dict.fromkeys(["alpha", "D_offset", *fixed], False))
    rates = {}
    for convention in ("published", "homodyne"):
        model = tt.LaminarFlow(gap=GAP, shear_convention=convention)
        fit = tt.fit_nlsq(model, data, space)
        assert fit.converged
        rates[convention] = float(fit.params["gamma_dot_t0"])
    ratio = rates["homodyne"] / truth["gamma_dot_t0"]
    print(f"published {rates['published'] / truth['gamma_dot_t0']:.3f}, homodyne {ratio:.3f}")
    assert rates["published"] == pytest.approx(truth["gamma_dot_t0"], rel=0.02)
    assert ratio == pytest.approx(2.2, abs=0.1)
