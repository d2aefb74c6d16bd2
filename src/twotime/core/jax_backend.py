"""The functional interface under the module path of its document; see `twotime.compat`."""

from twotime.compat.jax_backend import *  # noqa: F403
from twotime.compat.jax_backend import __all__ as __all__
