"""For tests of laws: the laws that every model keeps, and hypothesis strategies.

`check_model(MyModel())` puts a model through all laws; the first broken one is named in a
sentence. The strategies draw parameters, priors, spaces, times, angles, data, configurations and
laws inside their domain. Needs hypothesis and float64.
"""

from twotime.testing.derivatives import derivative_errors as derivative_errors
from twotime.testing.laws import LawBroken as LawBroken
from twotime.testing.laws import check_model as check_model
from twotime.testing.strategies import angles as angles
from twotime.testing.strategies import thetas as thetas
from twotime.testing.strategies import times as times

__all__ = ["LawBroken", "angles", "check_model", "derivative_errors", "thetas", "times"]
