"""One canonical problem for each model: small, well determined, the same in every test."""

from functools import cached_property
from typing import NamedTuple

import jax
import numpy as np

import twotime as tt

FRAMES, DT, Q, NOISE, CONTRAST = 40, 0.1, 0.005, 0.01, 0.3
TIMES = DT * np.arange(1, FRAMES + 1)


class _Problem(NamedTuple):
    name: str
    model: tt.AbstractTwoTimeModel
    truth: tuple[float, ...]
    phi: tuple[float, ...]
    fixed: tuple[str, ...] = ()


class Case(_Problem):
    """A model, the truth, its simulated data, and the space that a fit starts from."""

    @cached_property
    def data(self) -> tt.TwoTimeData:
        """Simulated data with independent noise."""
        return tt.simulate(
            self.model, np.asarray(self.truth), t=TIMES, q=Q, phi=np.asarray(self.phi),
            contrast=CONTRAST, offset=1.0, noise=NOISE, key=jax.random.key(0),
        )  # fmt: skip

    @cached_property
    def space(self) -> tt.ParameterSpace:
        """The registry's space, started 10 % off the truth, what the data leave open fixed."""
        space = tt.ParameterSpace.from_config({"analysis_mode": self.name})
        start = {n: 1.1 * x for n, x in zip(self.model.names, self.truth, strict=True)}
        start |= {n: self.value(n) for n in self.fixed}
        return space.with_values(start).with_vary({n: False for n in self.fixed})

    def value(self, name: str) -> float:
        """The true value of a parameter."""
        return self.truth[self.model.names.index(name)]


CASES = (
    Case("static", tt.StaticDiffusion(), (2e4, -0.2, 50.0), (0.0, 90.0), ("D_offset",)),
    Case(
        "laminar_flow", tt.LaminarFlow(gap=2e6), (2e4, 0.2, 100.0, 4e-4, 0.2, 1e-5, 3.0),
        (0.0, 40.0, 80.0), ("D_offset", "gamma_dot_t_offset"),
    ),
    Case(
        "two_component", tt.TwoComponent(),
        (1e4, 0.1, 0.0, 4e4, -0.2, 0.0, 1500.0, 0.2, 0.0, 0.4, 0.1, 0.0, 0.1, 2.0),
        (0.0, 50.0), ("D_offset_ref", "D_offset_sample", "v_offset", "f2", "f3"),
    ),
)  # fmt: skip
BY_NAME = {case.name: case for case in CASES}
