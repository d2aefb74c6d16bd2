"""Models of the two-time correlation: each says its channels per frame and its pixel.

Use `StaticDiffusion` for diffusion alone, `LaminarFlow` for a sheared suspension seen by its
own speckle, `TwoComponent` for moving scatterers beating against a reference.
"""

import math
from abc import abstractmethod
from typing import Literal, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from twotime.core import rates
from twotime.core.rates import AnyArray, At, Integration, Scalar, Times

Params = Float[AnyArray, " param"]
Real = Float[AnyArray, "..."] | float
ShearConvention = Literal["published", "homodyne"]


class Channels(eqx.Module):
    """What a model needs to know of each time, before pairs are formed.

    Attributes:
        decay: Clocks that never decrease; a pixel sees exp(-(difference)) of each.
        phase: Clocks of any sign [rad]; a pixel sees their differences, sines and cosines.
        level: Values that a pixel sees at both of its times.
    """

    decay: Float[AnyArray, "decay time"]
    phase: Float[AnyArray, "phase time"]
    level: Float[AnyArray, "level time"]


class Pixel(eqx.Module):
    """What a model's `pixel` is computed from; behind the first axis: the pixels' shape.

    Attributes:
        decay: exp(-(clock(t2) - clock(t1))) of each decay clock, at most 1.
        shift: clock(t2) - clock(t1) of each phase clock [rad].
        sin: Sine of `shift`.
        cos: Cosine of `shift`.
        level1: Each level at t1.
        level2: Each level at t2.
    """

    decay: Float[AnyArray, "decay *pixel"]
    shift: Float[AnyArray, "phase *pixel"]
    sin: Float[AnyArray, "phase *pixel"]
    cos: Float[AnyArray, "phase *pixel"]
    level1: Float[AnyArray, "level *pixel"]
    level2: Float[AnyArray, "level *pixel"]


class Terms(eqx.Module):
    """A correlation as a sum of products, for models that are one (`is_separable`).

    C(t1, t2) = sum over k of weight_k(t1) weight_k(t2) exp(-(decay_k(t2) - decay_k(t1)))
    cos(phase_k(t2) - phase_k(t1)). `oscillates` says which terms have a phase at all.
    """

    weight: Float[Array, "term time"]
    decay: Float[Array, "term time"]
    phase: Float[Array, "term time"]
    oscillates: tuple[bool, ...] = eqx.field(static=True)


class AbstractTwoTimeModel(eqx.Module):
    """A law for the normalised two-time correlation C(phi, t1, t2), 1 on the diagonal.

    A model is its parameter names and two methods: `channels`, functions of one time, and
    `pixel`, a function of the channels at two times. Everything else (the plane, pairs, fits,
    posteriors, derivatives) follows from these. Parameters are passed as one array in the
    order of `names`; angles are degrees, times s, lengths Å.
    """

    names: eqx.AbstractVar[tuple[str, ...]]

    @abstractmethod
    def channels(self, params: Params, times: At, *, t: Times, q: Scalar, phi: Scalar) -> Channels:
        """Evaluate the clocks and levels at some times.

        Args:
            params: Parameters in the order of `names`.
            times: Where to evaluate; inside the span of `t` [s].
            t: Frame grid on which rates are integrated [s].
            q: Wavevector [1/Å].
            phi: Detector angle [degree].

        Returns:
            The channels at `times`.
        """

    @abstractmethod
    def pixel(self, pixel: Pixel) -> Float[Array, "*pixel"]:
        """Normalised correlation of pixels with t1 <= t2, from the channels at both times.

        Must be 1 where both times are equal, use array operations that broadcast, and have
        finite derivatives there.
        """

    @property
    def is_separable(self) -> bool:
        """Whether `terms` writes the same correlation as a sum of products."""
        return False

    def terms(self, channels: Channels) -> Terms:
        """The correlation as a sum of products, from the same channels as `pixel`.

        Raises:
            TypeError: If the model is not such a sum (`is_separable` is False).
        """
        raise TypeError(
            f"{type(self).__name__} is not a sum of products of functions of one time; "
            "use the tiled evaluator, which takes any model."
        )

    def field(self, pixel: Pixel) -> Num[Array, "*pixel"]:
        """Field correlation g1 with |g1|² equal to `pixel`, for simulating speckle.

        Raises:
            TypeError: If the model has no field correlation.
        """
        raise TypeError(
            f"{type(self).__name__} does not say its field correlation; "
            "simulate it with `simulate`, which adds pixel noise, instead of `simulate_speckle`."
        )


def _diffusion_clock(
    integration: Integration, params: Params, times: At, *, t: Times, q: Scalar
) -> At:
    """q² ∫J for the three transport parameters."""
    clock = rates.transport_clock(
        times, params[0], params[1], params[2], t=t, integration=integration
    )
    return q**2 * clock


@final
class StaticDiffusion(AbstractTwoTimeModel):
    r"""Diffusion with an ageing transport coefficient: $C = e^{-q^2\int J\,dt}$.

    $J(t) = D_0 t^\alpha + D_\mathrm{off}$ [Å²/s] is the growth rate of the variance of the
    displacement along q; Brownian motion with coefficient D has J = 2D.

    Attributes:
        integration: "trapezoid" on the frames or "exact" (closed form of the power law).

    Reference:
        He et al., PNAS 121, e2401162121 (2024), with zero shear.
    """

    names: tuple[str, ...] = eqx.field(default=("D0", "alpha", "D_offset"), static=True, init=False)
    integration: Integration = eqx.field(default="trapezoid", static=True)

    def __check_init__(self) -> None:
        rates.check_integration(self.integration)

    def channels(self, params, times, *, t, q, phi):
        decay = _diffusion_clock(self.integration, params, times, t=t, q=q)[None]
        none = jnp.zeros((0, times.shape[0]), times.dtype)
        return Channels(decay, none, none)

    def pixel(self, pixel):
        return pixel.decay[0]

    def field(self, pixel):
        return jnp.sqrt(pixel.decay[0])

    @property
    def is_separable(self):
        return True

    def terms(self, channels):
        nothing = jnp.zeros_like(channels.decay)
        return Terms(jnp.ones_like(channels.decay), channels.decay, nothing, (False,))


@final
class LaminarFlow(AbstractTwoTimeModel):
    r"""Diffusion in a uniform velocity gradient (Couette flow across a gap h).

    $C = e^{-q^2\int J\,dt}\,(\sin a/a)^2$ with
    $a = \tfrac12 q h \cos(\phi - \phi_0) \int \dot\gamma\,dt$ and
    $\dot\gamma(t) = \dot\gamma_0 t^\beta + \dot\gamma_\mathrm{off}$ [1/s].

    Attributes:
        gap: h, the distance between stator and rotor [Å].
        shear_convention: "published" is the equation above. "homodyne" reproduces older
            results: $(\sin\Phi/\Phi)^4$ with $\Phi = a/\pi$. It makes a fitted shear rate
            $\pi/\sqrt2$ times larger at small strain.
        integration: "trapezoid" on the frames or "exact" (closed form of the power law).

    Reference:
        He et al., PNAS 121, e2401162121 (2024).
    """

    names: tuple[str, ...] = eqx.field(
        default=(
            "D0",
            "alpha",
            "D_offset",
            "gamma_dot_t0",
            "beta",
            "gamma_dot_t_offset",
            "phi0",
        ),
        static=True,
        init=False,
    )
    gap: Scalar = 2.0e6
    shear_convention: ShearConvention = eqx.field(default="published", static=True)
    integration: Integration = eqx.field(default="trapezoid", static=True)

    def __check_init__(self) -> None:
        rates.check_integration(self.integration)
        if self.shear_convention not in ("published", "homodyne"):
            raise ValueError(
                f"shear_convention is {self.shear_convention!r}; expected 'published' or "
                "'homodyne'; use 'published' unless older results must be reproduced."
            )

    def channels(self, params, times, *, t, q, phi):
        decay = _diffusion_clock(self.integration, params, times, t=t, q=q)[None]
        strain = rates.transport_clock(
            times, params[3], params[4], params[5], t=t, integration=self.integration
        )
        phase = self._phase_factor(q, phi, params[6]) * strain[None]
        return Channels(decay, phase, jnp.zeros((0, times.shape[0]), times.dtype))

    def pixel(self, pixel):
        return pixel.decay[0] * self._profile(pixel) ** 2

    def field(self, pixel):
        return jnp.sqrt(pixel.decay[0]) * self._profile(pixel)

    def _profile(self, pixel: Pixel) -> Array:
        mean = sinc(pixel.shift[0], pixel.sin[0])
        return mean if self.shear_convention == "published" else mean**2

    def _phase_factor(self, q: Scalar, phi: Scalar, phi0: Scalar) -> AnyArray:
        half = 0.5 if self.shear_convention == "published" else 0.5 / jnp.pi
        return half * q * self.gap * jnp.cos(jnp.deg2rad(phi - phi0))


@final
class TwoComponent(AbstractTwoTimeModel):
    r"""A moving sample beating against a reference, fractions x_s and x_r = 1 - x_s.

    $C = |x_r x_r' e^{-\frac12 q^2\int J_r} +
    x_s x_s' e^{-\frac12 q^2\int J_s + i q \cos(\phi-\phi_0)\int v}|^2/(f f')$ with
    $f = x_r^2 + x_s^2$, primes at t2, $v(t) = v_0 t^\beta + v_\mathrm{off}$ [Å/s] and
    $x_s(t) = f_0 e^{f_1(t - f_2)} + f_3$ clipped to [0, 1].

    Attributes:
        integration: "trapezoid" on the frames or "exact" (closed form of the power law).

    Reference:
        He et al., PNAS 122 (2025), SI Eq. S-95.
    """

    names: tuple[str, ...] = eqx.field(
        default=(
            "D0_ref",
            "alpha_ref",
            "D_offset_ref",
            "D0_sample",
            "alpha_sample",
            "D_offset_sample",
            "v0",
            "beta",
            "v_offset",
            "f0",
            "f1",
            "f2",
            "f3",
            "phi0",
        ),
        static=True,
        init=False,
    )
    integration: Integration = eqx.field(default="trapezoid", static=True)

    def __check_init__(self) -> None:
        rates.check_integration(self.integration)

    def channels(self, params, times, *, t, q, phi):
        reference = _diffusion_clock(self.integration, params[0:3], times, t=t, q=q)
        sample = _diffusion_clock(self.integration, params[3:6], times, t=t, q=q)
        path = rates.signed_clock(
            times, params[6], params[7], params[8], t=t, integration=self.integration
        )
        phase = q * jnp.cos(jnp.deg2rad(phi - params[13])) * path
        x = rates.fraction(times, params[9], params[10], params[11], params[12])
        norm = jnp.sqrt(x**2 + (1 - x) ** 2)
        return Channels(
            decay=0.5 * jnp.stack([reference, sample]),
            phase=phase[None],
            level=jnp.stack([(1 - x) / norm, x / norm]),
        )

    def pixel(self, pixel):
        reference, sample = pixel.level1 * pixel.level2 * pixel.decay
        return reference**2 + sample**2 + 2 * reference * sample * pixel.cos[0]

    def field(self, pixel):
        reference, sample = pixel.level1 * pixel.level2 * pixel.decay
        return reference + sample * jax.lax.complex(pixel.cos[0], pixel.sin[0])

    @property
    def is_separable(self):
        return True

    def terms(self, channels):
        reference, sample = channels.level
        half_r, half_s = channels.decay
        zero = jnp.zeros_like(reference)
        return Terms(
            weight=jnp.stack([reference**2, sample**2, jnp.sqrt(2.0) * reference * sample]),
            decay=jnp.stack([2 * half_r, 2 * half_s, half_r + half_s]),
            phase=jnp.stack([zero, zero, channels.phase[0]]),
            oscillates=(False, False, True),
        )


def sinc(x: Real, sin_x: Real) -> Float[Array, "..."]:
    """sin(x)/x from x and its sine, by its series near 0 where the quotient loses digits."""
    return _sinc(jnp.asarray(x), jnp.asarray(sin_x))


@jax.custom_jvp
def _sinc(x: Array, sin_x: Array) -> Array:
    return jnp.where(_is_small(x), _sinc_series(x)[0], sin_x) / _not_small(x)


@_sinc.defjvp
def _(primals, tangents):
    """Of x and sin(x) as two variables; one division, and that last, is the fastest."""
    (x, sin_x), (dx, dsin) = primals, tangents
    (series, slope), small = _sinc_series(x), _is_small(x)
    value = jnp.where(small, series, sin_x) / _not_small(x)
    return value, jnp.where(small, slope * dx, dsin - value * dx) / _not_small(x)


def _is_small(x: Array) -> Array:
    return jnp.abs(x) < 0.05


def _not_small(x: Array) -> Array:
    return jnp.where(_is_small(x), 1.0, x)


def _sinc_series(x: Array) -> tuple[Array, Array]:
    """The series of sin(x)/x and of its derivative, right for small x."""
    square = jnp.where(_is_small(x), x, 0.0) ** 2
    value, slope = jnp.zeros_like(x), jnp.zeros_like(x)
    for power in range(4, -1, -1):
        slope = slope * square + value
        value = value * square + (-1) ** power / math.factorial(2 * power + 1)
    return value, 2 * x * slope
