"""For tests of laws: the laws that every model keeps, and hypothesis strategies.

`check_model(MyModel())` puts a model through all laws; the first broken one is named in a
sentence. `check_composable(verb, args)` does the same with a function and the transformations of
JAX. The strategies draw parameters, priors, spaces, times, angles, data, configurations and
laws inside their domain. Needs hypothesis and float64.
"""

from twotime.testing.checks import LawBroken as LawBroken
from twotime.testing.checks import check_model as check_model
from twotime.testing.composable import check_composable as check_composable
from twotime.testing.derivatives import derivative_errors as derivative_errors
from twotime.testing.strategies import angles as angles
from twotime.testing.strategies import configs as configs
from twotime.testing.strategies import data as data
from twotime.testing.strategies import forms as forms
from twotime.testing.strategies import laws as laws
from twotime.testing.strategies import parameters as parameters
from twotime.testing.strategies import priors as priors
from twotime.testing.strategies import spaces as spaces
from twotime.testing.strategies import thetas as thetas
from twotime.testing.strategies import times as times

__all__ = [
    "LawBroken", "angles", "check_composable", "check_model", "configs", "data",
    "derivative_errors", "forms", "laws", "parameters", "priors", "spaces", "thetas", "times",
]  # fmt: skip
