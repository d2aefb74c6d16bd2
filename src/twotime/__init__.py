"""Fit two-time X-ray photon correlation data (XPCS) with honest uncertainties.

Values are frozen PyTrees, verbs are pure functions; importing changes nothing in the process.
`plots`, `run` and `testing` are loaded on first use, because they bring matplotlib and hypothesis;
BlackJAX, which starts XLA, is imported by the first sampling.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from warnings import warn as _warn

from twotime.config.manager import ConfigManager as ConfigManager
from twotime.config.manager import build_model as build_model
from twotime.config.parameter_manager import ParameterManager as ParameterManager
from twotime.config.parameter_registry import REGISTRIES as REGISTRIES
from twotime.config.parameter_registry import ParameterInfo as ParameterInfo
from twotime.config.parameter_registry import ParameterRegistry as ParameterRegistry
from twotime.config.parameter_space import ParameterSpace as ParameterSpace
from twotime.config.parameter_space import PriorDistribution as PriorDistribution
from twotime.core import jax_backend as jax_backend
from twotime.covariance import known_noise_covariance as known_noise_covariance
from twotime.covariance import optimum as optimum
from twotime.covariance.bands import delta_bands as delta_bands
from twotime.covariance.bands import draw_bands as draw_bands
from twotime.covariance.misfit import residual_structure as residual_structure
from twotime.covariance.one_time import OneTime as OneTime
from twotime.covariance.one_time import one_time as one_time
from twotime.data import load_data as load_data
from twotime.data.dataset import TwoTimeData as TwoTimeData
from twotime.data.dataset import join as join
from twotime.data.dataset import unstack as unstack
from twotime.data.inspect import inspect_file as inspect_file
from twotime.data.readers.aps import read_counts as read_counts
from twotime.data.repeats import average as average
from twotime.data.simulate import simulate as simulate
from twotime.data.simulate import simulate_speckle as simulate_speckle
from twotime.data.write import write_apsu as write_apsu
from twotime.errors import ConfigurationError as ConfigurationError
from twotime.errors import DataError as DataError
from twotime.errors import ResultError as ResultError
from twotime.errors import TwoTimeError as TwoTimeError
from twotime.fit import fit_nlsq as fit_nlsq
from twotime.fit import fit_sequential as fit_sequential
from twotime.fit import profile as profile
from twotime.models.base import AbstractTwoTimeModel as AbstractTwoTimeModel
from twotime.models.base import Channels as Channels
from twotime.models.base import Pair as Pair
from twotime.models.components import Component as Component
from twotime.models.components import Components as Components
from twotime.models.correlation import correlation as correlation
from twotime.models.correlation import correlation_at as correlation_at
from twotime.models.forms import Constant as Constant
from twotime.models.forms import Exponential as Exponential
from twotime.models.forms import PowerLaw as PowerLaw
from twotime.models.forms import Spline as Spline
from twotime.models.fractions import ExponentialFractions as ExponentialFractions
from twotime.models.fractions import Simplex as Simplex
from twotime.models.laminar_flow import LaminarFlow as LaminarFlow
from twotime.models.laws import find_law as find_law
from twotime.models.laws import law_config as law_config
from twotime.models.static import StaticDiffusion as StaticDiffusion
from twotime.models.two_component import TwoComponent as TwoComponent
from twotime.report import cmc as _cmc  # noqa: F401 registers its words
from twotime.report import nlsq as _nlsq  # noqa: F401
from twotime.report.compare import compare as compare
from twotime.results import load_result as load_result
from twotime.results.cmc import CMCResult as CMCResult
from twotime.results.cmc import Limits as Limits
from twotime.results.nlsq import NLSQResult as NLSQResult
from twotime.results.sequential import SequentialResult as SequentialResult
from twotime.results.storage import __version__ as __version__
from twotime.sample.chains import Hmc as Hmc
from twotime.sample.chains import Nuts as Nuts
from twotime.sample.cmc import fit_cmc as fit_cmc
from twotime.sample.combine import Consensus as Consensus
from twotime.sample.combine import Gaussian as Gaussian
from twotime.sample.combine import Importance as Importance
from twotime.sample.log_density import LogDensity as LogDensity
from twotime.sample.log_density import log_density as log_density
from twotime.sample.shards import Sharding as Sharding
from twotime.solver import RESULTS as RESULTS
from twotime.start import estimate_starts as estimate_starts

if _TYPE_CHECKING:
    from twotime import plots as plots
    from twotime import testing as testing
    from twotime import workflow as run  # noqa: F401

_LATE = {"plots": "twotime.plots", "run": "twotime.workflow", "testing": "twotime.testing"}


def __getattr__(name: str) -> object:
    if name == "Pixel":
        _warn("twotime.Pixel is called twotime.Pair now.", DeprecationWarning, stacklevel=2)
        return Pair
    if name not in _LATE:
        raise AttributeError(f"module 'twotime' has no attribute {name!r}")
    return _import_module(_LATE[name])


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})
