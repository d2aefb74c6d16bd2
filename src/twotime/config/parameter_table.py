"""The numbers of every parameter: the one place where they are written.

`HOMODYNE` holds the parameters of the static and the sheared model, `TWO_COMPONENT` those of the
two-component one; parameters that agree are one object.
"""

from collections.abc import Mapping

from twotime.config.parameter_info import ParameterInfo


def _transport(suffix: str, of: str) -> dict[str, ParameterInfo]:
    return {
        f"D0{suffix}": ParameterInfo(
            f"D0{suffix}", 1e4, 100.0, 1e6, f"Transport coefficient {of} at t = 1 s",
            "Å²/s^(1+α)", log_space=True, prior_mean=1e4, prior_std=1e4,
        ),
        f"alpha{suffix}": ParameterInfo(
            f"alpha{suffix}", 0.0, -5.0, 5.0, f"Exponent in time of the transport {of}",
            prior_mean=0.0, prior_std=1.0,
        ),
        f"D_offset{suffix}": ParameterInfo(
            f"D_offset{suffix}", 0.0, -1e5, 1e5, f"Constant part of the transport {of}",
            "Å²/s", prior_mean=0.0, prior_std=1e3,
        ),
    }  # fmt: skip


_SHARED = {
    "phi0": ParameterInfo(
        "phi0", 0.0, -10.0, 10.0, "Direction of the flow in the detector's frame", "degree",
        prior_mean=0.0, prior_std=5.0, is_flow=True,
    ),
    "contrast": ParameterInfo(
        "contrast", 0.5, 0.0, 1.0, "Speckle contrast: c2 = offset + contrast · C",
        prior_mean=0.5, prior_std=0.25, is_scaling=True, is_physical=False,
    ),
    "offset": ParameterInfo(
        "offset", 1.0, 0.5, 1.5, "Baseline: c2 = offset + contrast · C",
        prior_mean=1.0, prior_std=0.25, is_scaling=True, is_physical=False,
    ),
}  # fmt: skip

HOMODYNE: Mapping[str, ParameterInfo] = _SHARED | {
    "D0": ParameterInfo(
        "D0", 1e3, 100.0, 1e5, "Transport coefficient at t = 1 s", "Å²/s^(1+α)",
        log_space=True, prior_mean=1e3, prior_std=1e3,
    ),
    "alpha": ParameterInfo(
        "alpha", 0.5, -2.0, 2.0, "Exponent in time of the transport",
        prior_mean=0.5, prior_std=0.5,
    ),
    "D_offset": ParameterInfo(
        "D_offset", 10.0, -1e5, 1e5, "Constant part of the transport", "Å²/s",
        prior_mean=10.0, prior_std=200.0,
    ),
    "gamma_dot_t0": ParameterInfo(
        "gamma_dot_t0", 0.01, 1e-6, 0.5, "Shear rate at t = 1 s", "1/s^(1+β)",
        log_space=True, prior_mean=0.01, prior_std=0.1, is_flow=True,
    ),
    "beta": ParameterInfo(
        "beta", 0.5, -2.0, 2.0, "Exponent in time of the shear rate",
        prior_mean=0.0, prior_std=0.5, is_flow=True,
    ),
    "gamma_dot_t_offset": ParameterInfo(
        "gamma_dot_t_offset", 0.0, -0.1, 0.1, "Constant part of the shear rate", "1/s",
        prior_mean=0.0, prior_std=0.02, is_flow=True,
    ),
}  # fmt: skip

TWO_COMPONENT: Mapping[str, ParameterInfo] = (
    _SHARED
    | _transport("_ref", "of the reference")
    | _transport("_sample", "of the sample")
    | {
        "v0": ParameterInfo(
            "v0", 1e3, 1e-6, 1e4, "Velocity at t = 1 s", "Å/s^(1+β)",
            log_space=True, prior_mean=1e3, prior_std=1e3, is_flow=True,
        ),
        "beta": ParameterInfo(
            "beta", 0.0, -2.0, 2.0, "Exponent in time of the velocity",
            prior_mean=0.0, prior_std=1.0, is_flow=True,
        ),
        "v_offset": ParameterInfo(
            "v_offset", 0.0, -100.0, 100.0, "Constant part of the velocity", "Å/s",
            prior_mean=0.0, prior_std=25.0, is_flow=True,
        ),
        "f0": ParameterInfo(
            "f0", 0.5, 0.0, 1.0, "Amplitude of the sample fraction",
            prior_mean=0.5, prior_std=0.25,
        ),
        "f1": ParameterInfo(
            "f1", 0.0, -10.0, 10.0, "Rate of change of the sample fraction", "1/s",
            prior_mean=0.0, prior_std=5.0,
        ),
        "f2": ParameterInfo(
            "f2", 0.0, -1e4, 1e4, "Time at which the changing fraction is f0", "s",
            prior_mean=0.0, prior_std=1e3,
        ),
        "f3": ParameterInfo(
            "f3", 0.0, 0.0, 1.0, "Constant part of the sample fraction",
            prior_mean=0.0, prior_std=0.5,
        ),
    }
)  # fmt: skip
