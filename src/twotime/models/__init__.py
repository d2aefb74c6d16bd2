"""Laws of the two-time correlation: rates, models, scaling."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import ArrayLike, Float

from twotime.models.base import Finding
from twotime.models.laws import LAWS as LAWS
from twotime.models.laws import Law
from twotime.models.laws import check_law as check_law
from twotime.models.scaling import CHECKS


def findings(
    values: Mapping[str, float],
    t: Float[ArrayLike, " time"] | None = None,
    law: Law | None = None,
) -> list[Finding]:
    """All that is noteworthy about parameter values: severity and sentence of each finding.

    Args:
        values: Name to value, of any of the laws; scaling may be left out.
        t: Time of each frame [s]; without it rules that need frames are left out.
        law: A law that is none of `LAWS`.
    """
    times = np.atleast_1d(np.asarray([] if t is None else t, float))
    checks = [check for kind in (*LAWS.values(), *((law,) if law else ())) for check in kind.checks]
    found = [
        finding
        for check in (*checks, *CHECKS)
        if all(name in values for name in check.names)
        for finding in check.judge(*(float(values[name]) for name in check.names), t=times)
    ]
    return list(dict.fromkeys(found))
