"""Other laws that a start might have meant: the same size of a rate or fraction, another course.

Fits that start in a wrong corner stay there because a power law with offset can be flat, rise,
fall, begin late or end early, and no small step leads from one of these to another. So every
function of time of a candidate is exchanged for others of the same mean.
"""

import numpy as np
from jaxtyping import Float

Params = Float[np.ndarray, " param"]
Several = Float[np.ndarray, "other param"]

_SCALES = (0.4, 1.0, 2.5)
_FRACTIONS = (0.1, 0.35, 0.6, 0.85)


class Moves:
    """Moves of a model, in its parameters.

    Attributes:
        rates: Where the amplitude, exponent and offset of each rate begin.
        signed: The rates that may be negative.
        fraction: Where f0, f1, f2 and f3 begin, or None.
        exchange: Two rates that trade places where the fraction becomes one minus itself.
    """

    def __init__(
        self,
        t: Float[np.ndarray, " time"],
        rates: tuple[int, ...],
        *,
        signed: tuple[int, ...] = (),
        fraction: int | None = None,
        exchange: tuple[int, int] | None = None,
    ) -> None:
        n = t.size
        self._t = t[np.unique(np.linspace(0, n - 1, min(n, 200)).astype(int))]
        self._rates, self._signed = rates, signed
        self._fraction, self._exchange = fraction, exchange
        self._shapes = self._rate_shapes()
        self._laws = self._fraction_laws()

    def __call__(self, params: Params) -> list[Several]:
        """Other parameters, one array for each kind of move."""
        found = [self._reshaped(params, rate, _SCALES) for rate in self._rates]
        if self._exchange is not None:
            one, two = self._exchange
            both = [self._reshaped(p, two, (1.0,)) for p in self._reshaped(params, one, (1.0,))]
            found.append(np.concatenate(both))
        if self._fraction is not None:
            found += self._with_fractions(params)
        return found

    def _rate_shapes(self) -> Float[np.ndarray, "shape 3"]:
        """Amplitude, exponent and offset of rates whose mean is 1."""
        t = np.maximum(self._t, 0.5 * (self._t[1] - self._t[0]))
        laws = [(1.0, p, 0.0) for p in (0.0, -0.7, 0.7, -1.5, 1.5, -3.0, 3.0)]
        for p in (-1.5, 1.5):
            laws += [(1.0, p, -((t[0] + c * (t[-1] - t[0])) ** p)) for c in (0.1, 0.25, 0.45, 0.7)]
        laws += [(1.0, p, 2.0 * float(np.mean(t**p))) for p in (-2.0, 2.0)]
        a, p, b = np.asarray(laws).T[:, :, None]
        mean = np.trapezoid(np.maximum(a * t**p + b, 0.0), t, axis=1) / (t[-1] - t[0])
        return np.stack([a[:, 0] / mean, p[:, 0], b[:, 0] / mean], axis=1)

    def _reshaped(self, params: Params, rate: int, scales: tuple[float, ...]) -> Several:
        """A rate exchanged for others of like mean."""
        t = np.maximum(self._t, 0.5 * (self._t[1] - self._t[0]))
        a, p, b = params[rate : rate + 3]
        values = a * np.exp(np.minimum(p * np.log(t), 300.0)) + b
        values = np.abs(values) if rate in self._signed else np.maximum(values, 0.0)
        mean = np.trapezoid(values, t) / (t[-1] - t[0])
        out = np.repeat(params[None], len(scales) * len(self._shapes), axis=0)
        size = mean * np.repeat(scales, len(self._shapes))
        shapes = np.tile(self._shapes, (len(scales), 1))
        out[:, rate] = size * shapes[:, 0]
        out[:, rate + 1] = shapes[:, 1]
        out[:, rate + 2] = size * shapes[:, 2]
        return out

    def _fraction_laws(self) -> Float[np.ndarray, "law 4"]:
        """f0, f1, f2 = 0 and f3 of fractions that go from one value to another."""
        span, first = self._t[-1] - self._t[0], self._t[0]
        laws = []
        for begin in _FRACTIONS:
            for end in _FRACTIONS:
                for rate in (1.0, 4.0, 16.0) if begin != end else (1.0,):
                    k = rate / span if end > begin else -rate / span
                    place = self._t[-1] if end > begin else first
                    laws.append((abs(end - begin) * np.exp(-k * place), k, 0.0, min(begin, end)))
        return np.asarray(laws)

    def _with_fractions(self, params: Params) -> list[Several]:
        k = self._fraction
        assert k is not None and self._exchange is not None
        laws = self._laws.copy()
        laws[:, 0] *= np.exp(np.clip(laws[:, 1] * params[k + 2], -300.0, 300.0))
        laws[:, 2] = params[k + 2]
        plain = np.repeat(params[None], len(laws), axis=0)
        plain[:, k : k + 4] = laws
        one, two = self._exchange
        swapped = plain.copy()
        swapped[:, one : one + 3], swapped[:, two : two + 3] = (
            plain[:, two : two + 3],
            plain[:, one : one + 3],
        )
        return [plain, swapped]
