"""Sections of the configuration: every key with its type, range, unit, default and effect.

Each key is declared once, here. Validation and JSON schema (by pydantic), the tables in
`docs/configuration.md` and the full template are made from it. The string below a key is its
description. No section requires all its keys; what a run needs is in `twotime.config.rules`.
"""

from typing import Annotated, Literal

from pydantic import AliasChoices, Field
from typing_extensions import TypedDict

from twotime.config.keys import key
from twotime.config.law_types import GeometryConfig as GeometryConfig
from twotime.config.law_types import ModelConfig as ModelConfig
from twotime.config.law_types import Number as Number
from twotime.config.law_types import ParameterConfig as ParameterConfig
from twotime.config.law_types import ParameterGroupConfig as ParameterGroupConfig
from twotime.config.law_types import ParametersConfig as ParametersConfig
from twotime.config.parameter_names import AnalysisMode
from twotime.models.scaling import PerAngleMode

Degrees = Annotated[float, Field(ge=-360, le=360)]
Range = Annotated[list[Degrees], Field(min_length=2, max_length=2)]
Seconds = Annotated[float, key(unit="s", gt=0, le=1e9)]
Wavevector = Annotated[float, key(unit="1/Å", gt=0, le=1e3)]
_Q = Annotated[float, Field(gt=0, le=1e3)]
Wavevectors = _Q | Annotated[list[_Q], Field(min_length=1)] | Literal["all"]
_Q_WORDS = "a number, a list of numbers, or all; each more than 0 and at most 1000"
Paths = str | Annotated[list[str], Field(min_length=1)]
_PATH_WORDS = "a path, a pattern, or a list of these"
_ACCEPT = AliasChoices("target_accept_prob", "target_accept")
Probability = Annotated[float, key(gt=0, lt=1, validation_alias=_ACCEPT)]
Width = Literal["curvature", "tempering", "none", "sandwich"]
_R_HAT = AliasChoices("max_r_hat", "r_hat_threshold")
RHat = Annotated[float, key(gt=1, le=10, validation_alias=_R_HAT)]
Frames = int | str
Method = Literal["nlsq", "cmc", "both"]
FileFormat = Literal[
    "auto", "aps-u", "aps-old", "esrf", "nxxpcs", "pychx", "cache", "hdf5", "npz", "npy"
]
ShardStrategy = Literal["random", "interleaved", "contiguous", "angles"]
_SCATTERING = "analyzer_parameters.scattering"
_CHAINS = "optimization.cmc.per_shard_mcmc"
_PRIOR_WIDTH = AliasChoices("nlsq_prior_width_factor", "prior_width_factor")


class InitialParametersConfig(TypedDict, total=False):
    """Flat form of the parameters; `parameters` wins where both give the same thing."""

    parameter_names: list[str]
    """Names, in the order of values."""
    values: list[Number]
    """One value for each name."""
    active_parameters: Annotated[list[str], key(otherwise="those that vary by default")]
    """Names that vary; contrast and offset also vary where parameter_names does not list them."""


class LayoutConfig(TypedDict, total=False):
    """Names of the arrays in an HDF5 or npz file of another layout (`entry/results/c2`)."""

    c2: str
    """Correlations: (time, time), (bin, time, time), or a group of numbered matrices."""
    q: Annotated[str, key(otherwise="wavevector_q for all matrices")]
    """Wavevectors, one or one per matrix [1/Å, or as the attribute `units` says]."""
    phi: Annotated[str, key(otherwise="scattering.phi_angles")]
    """Angles, one or one per matrix [degree, or as the attribute `units` says]."""
    dt: Annotated[str, key(otherwise="analyzer_parameters.dt")]
    """Time between frames [s, or as the attribute `units` says]."""
    t: Annotated[str, key(otherwise="equally spaced frames")]
    """Time of each frame [s, or as the attribute `units` says]."""
    mask: Annotated[str, key(otherwise="all points count")]
    """Other than 0 where a point counts; of the shape of c2."""
    sigma: Annotated[str, key(otherwise="no standard deviation")]
    """Standard deviation, one number or of the shape of c2."""
    axes: Annotated[Literal["bin, t1, t2", "t1, t2, bin"], key("bin, t1, t2")]
    """Order of the axes of a three-dimensional c2."""


class ExperimentalDataConfig(TypedDict, total=False):
    """The data file."""

    file_path: Annotated[Paths, key(words=_PATH_WORDS)]
    """Data file; relative to data_folder_path or to the folder of this file. Several: a list, or a
    pattern (scan_*.h5)."""
    file_mode: Annotated[Literal["each", "together", "average"], key("each")]
    """Several files: fit each by itself, in a folder of its own; or, as repeats of a measurement,
    one law to all together, or the average of their c2, each file weighed by its noise."""
    data_folder_path: Annotated[str, key(otherwise="this file's folder")]
    """Folder of file_path."""
    file_format: Annotated[FileFormat, key("auto")]
    """Layout of the file; auto recognises it."""
    layout: LayoutConfig
    mask_file: Annotated[str, key(otherwise="only what the data file masks")]
    """File with one array over the data file's frames, (time,) or (time, time): other than 0 where
    a frame or a point counts."""
    roi_axis: Annotated[Literal["first", "last"], key("first")]
    """Axis of a three-dimensional npy array that counts the matrices."""
    average_triangles: Annotated[bool, key(False)]
    """Average the two triangles of asymmetric matrices, which are an error otherwise."""
    baseline: Annotated[Literal[0, 1, "auto"], key("auto")]
    """What c2 is where nothing is correlated: 1, or 0 for files with c2 - 1; auto takes what the
    file says, or else its long lags. The offset is fitted near it."""
    cache_file_path: Annotated[str, key(otherwise="data_folder_path; without it there is none")]
    """Folder for caches of the selected data."""
    cache_filename_template: Annotated[str, key(otherwise="a name made from the selection")]
    """Name of the cache file with ${wavevector_q}, ${start_frame}, ${end_frame}."""
    cache_compression: Annotated[bool, key(True)]
    """Whether cache files are compressed."""


class ScatteringConfig(TypedDict, total=False):
    """Wavevector and angles."""

    wavevector_q: Annotated[Wavevectors, key(unit="1/Å", words=_Q_WORDS)]
    """Selects the file's nearest q, with all its angles; several, from a list; or all of them."""
    q_range: Annotated[list[_Q], key(unit="1/Å", otherwise="no limits", min_length=2, max_length=2)]
    """Lowest and highest q of those that are selected, both included."""
    q_tolerance: Annotated[float, key(0.05, ge=0, lt=1)]
    """Largest relative distance between the file's q and wavevector_q, and between neighbours of
    one ring (at most 0.01 there): bins whose own mean q differ from angle to angle."""
    q_mode: Annotated[Literal["each", "together"], key("each")]
    """Several q: fit each by itself, in a folder of its own, or one law to all of them."""
    phi_angles: Annotated[list[Degrees], key(unit="degree", otherwise="all in the file")]
    """Angles to analyse, or to simulate; they label the matrices of a file without angles."""


class AnalyzerParametersConfig(ParametersConfig, total=False):  # type: ignore[misc, call-arg]
    """Time axis, scattering and geometry; also takes the groups of `parameters`."""

    dt: Annotated[Seconds, key(unit="s", otherwise="from the data file")]
    """Time between frames."""
    dt_source: Annotated[Literal["config", "file"], key(otherwise="a disagreement is an error")]
    """Which dt to use where this file and the data file disagree."""
    start_frame: Annotated[int, key(1, ge=1, le=10**9)]
    """First frame, counted from 1."""
    end_frame: Annotated[int, key(-1, ge=-1, le=10**9)]
    """Last frame, included; -1 is the last in the data."""
    t0: Annotated[float, key(unit="s", otherwise="start_frame · dt", ge=0, le=1e9)]
    """Time of the first selected frame."""
    bad_frames: list[Frames]
    """Frames of the file that do not count, by number or range: [12, 41-45]."""
    scattering: ScatteringConfig
    geometry: GeometryConfig


class TemporalConfig(TypedDict, total=False):
    """Older form of the time axis; `analyzer_parameters` is the newer one."""

    dt: Annotated[Seconds, key(unit="s", same="analyzer_parameters.dt")]
    time_length: Annotated[int, key(ge=2, le=10**9)]
    """Number of frames: end_frame is t_start + time_length."""
    t_start: Annotated[int, key(0, ge=0, le=10**9)]
    """First frame, counted from 0: start_frame - 1."""


class NLSQOptimizationConfig(TypedDict, total=False):
    """Least squares."""

    max_iterations: Annotated[int, key(300, ge=1, le=10**6)]
    """Largest number of solver steps."""
    tolerance: Annotated[float, key(3e-2, ge=1e-12, le=1)]
    """Largest projected gradient and remaining step of a converged fit, in standard deviations."""
    method: Annotated[Literal["lm"], key("lm")]
    """Solver: Levenberg-Marquardt with bounds, the only one."""
    multistart: Annotated[bool, key(False)]
    """Fit from multistart_n starts and keep the best."""
    multistart_n: Annotated[int, key(8, ge=2, le=10**4)]
    """Number of starts with multistart: true."""
    seed: Annotated[int, key(0, ge=0, lt=2**32)]
    """Seed of the random starts."""
    start: Annotated[Literal["auto", "data", "values"], key("auto")]
    """Start at the values, at estimates from the data, or (auto) estimates where none are given."""
    per_angle_mode: Annotated[PerAngleMode, key("auto")]
    """Contrast and offset: a pair per angle, one pair, frozen estimates, or a Fourier series in the
    angle; auto is, from 3 angles on, one pair where those of the angles agree within their errors;
    else a pair per angle. The same in fitting and sampling."""
    evaluator: Annotated[Literal["auto", "tiled", "factored"], key("auto")]
    """How sums over c2 are computed; factored is faster, for separable models and loss: linear."""
    loss: Annotated[Literal["linear", "soft_l1", "huber"], key("linear")]
    """Loss of a residual; the robust ones limit the influence of outliers (evaluator tiled)."""
    loss_scale: Annotated[float, key(1.0, gt=0, le=1e6)]
    """Residual where a robust loss departs from the square, in 1.4826 median residual sizes."""
    priors: Annotated[bool, key(False)]
    """Let priors count as residuals: a maximum a posteriori estimate, with loss: linear."""
    uncertainty: Annotated[Literal["auto", "speckle", "residuals"], key("auto")]
    """Error bars from the noise of speckle and photons, or from the residuals of frames, whatever
    their noise; auto is speckle where the residuals are judged to be such noise."""
    nlsq_prior_width_factor: Annotated[float, key(validation_alias=_PRIOR_WIDTH, gt=0, le=1e6)]
    """Sampling after a fit: replace priors by normals around it, this many deviations wide."""


class CMCShardingConfig(TypedDict, total=False):
    """How the points of c2 are distributed over shards."""

    n_shards: Annotated[int, key(1, ge=1, le=10**5)]
    """Number of shards; 1 samples all points together."""
    shard_strategy: Annotated[ShardStrategy, key("random")]
    """At random within each angle, every n-th row, blocks of rows, or whole angles."""
    min_pairs_per_shard: Annotated[int, key(1000, ge=1, le=10**12)]
    """A shard with fewer points is an error."""


class CMCInitializationConfig(TypedDict, total=False):
    """Where chains start."""

    method: Annotated[Literal["nlsq", "prior"], key("nlsq")]
    """Chains start around a fit that is made first, or at draws from the prior."""
    nlsq_chi2_threshold: Annotated[float, key(otherwise="no limit", gt=0, le=1e12)]
    """A fit with a larger reduced χ² is an error."""
    jitter_scale: Annotated[float, key(1.0, ge=0, le=100)]
    """Spread of the chains' starts around the fit, in its standard deviations."""


class CMCBackendConfig(TypedDict, total=False):
    """Which sampler runs."""

    sampler: Annotated[Literal["nuts", "hmc"], key("nuts")]
    """Sampler; hmc takes the section optimization.hmc."""
    jit_compile: Annotated[Literal[True], key(True)]
    """Sampling is always compiled; false is not possible."""
    progress_bar: Annotated[bool, key(True)]
    """Show progress while sampling."""


class CMCValidationConfig(TypedDict, total=False):
    """When a sampling result counts as converged."""

    max_r_hat: Annotated[RHat, key(1.01)]
    """Largest R-hat of a converged result."""
    min_ess: Annotated[int, key(400, ge=1, le=10**9)]
    """Smallest effective sample size of a converged result."""
    min_bfmi: Annotated[float, key(0.3, ge=0, le=2)]
    """Smallest BFMI of a converged result."""
    max_divergences: Annotated[int, key(0, ge=0, le=10**9)]
    """Largest number of divergent draws of a converged result."""


class CMCCombinationConfig(TypedDict, total=False):
    """How the draws of the shards are combined."""

    method: Annotated[Literal["importance", "consensus", "gaussian"], key("importance")]
    """consensus: draws of the shards averaged with their precisions. gaussian: the product of
    Gaussians. importance: draws of this product, weighted by the posterior of all points."""
    weights: Annotated[list[float], key(refused=True)]
    """Shards are weighted by their own precision matrices. Delete the key."""


class CMCPerShardMCMCConfig(TypedDict, total=False):
    """Chains of each shard."""

    num_warmup: Annotated[int, key(500, ge=10, le=10**7)]
    """Warm-up draws of each chain."""
    num_samples: Annotated[int, key(1000, ge=10, le=10**8)]
    """Kept draws of each chain."""
    num_chains: Annotated[int, key(4, ge=1, le=10**4)]
    """Chains of each shard."""
    target_accept_prob: Annotated[Probability, key(0.9)]
    """Acceptance probability to which the step size is adapted."""
    max_tree_depth: Annotated[int, key(10, ge=1, le=20)]
    """Largest number of doublings of a NUTS trajectory."""


class CMCOptimizationConfig(TypedDict, total=False):
    """Consensus Monte Carlo."""

    enable: Annotated[Literal["auto", "always", "never"], key("auto")]
    """auto: as optimization.method says. always: also after method: nlsq. never: no sampling."""
    num_warmup: Annotated[int, key(same=f"{_CHAINS}.num_warmup", ge=10, le=10**7)]
    num_samples: Annotated[int, key(same=f"{_CHAINS}.num_samples", ge=10, le=10**8)]
    num_chains: Annotated[int, key(same=f"{_CHAINS}.num_chains", ge=1, le=10**4)]
    target_accept_prob: Annotated[Probability, key(same=f"{_CHAINS}.target_accept_prob")]
    max_tree_depth: Annotated[int, key(same=f"{_CHAINS}.max_tree_depth", ge=1, le=20)]
    max_r_hat: Annotated[RHat, key(same="optimization.cmc.validation.max_r_hat")]
    seed: Annotated[int, key(0, ge=0, lt=2**32)]
    """Seed of the sampler."""
    width_correction: Annotated[Width, key("curvature")]
    """How the posterior's width is corrected for the correlations of speckle noise. sandwich is
    the former word for curvature."""
    sharding: CMCShardingConfig
    initialization: CMCInitializationConfig
    backend: CMCBackendConfig
    validation: CMCValidationConfig
    combination: CMCCombinationConfig
    per_shard_mcmc: CMCPerShardMCMCConfig


class HmcConfig(TypedDict, total=False):
    """Hamiltonian Monte Carlo; needs optimization.cmc.backend.sampler: hmc."""

    step_size: Annotated[float, key(0.5, gt=0, le=100)]
    """Step of the integrator; the start value where it is adapted."""
    num_leapfrog_steps: Annotated[int, key(10, ge=1, le=10**4)]
    """Steps of a trajectory."""
    adapt_step_size: Annotated[bool, key(True)]
    """Adapt the step size during warm-up."""
    adapt_mass_matrix: Annotated[bool, key(True)]
    """Adapt the mass matrix during warm-up."""


class OptimizationConfig(TypedDict, total=False):
    """Fitting and sampling."""

    method: Annotated[Method, key("nlsq")]
    """Fit, sample, or both one after the other."""
    nlsq: NLSQOptimizationConfig
    cmc: CMCOptimizationConfig
    hmc: HmcConfig


class PhiFilteringConfig(TypedDict, total=False):
    """Which angles are used."""

    ranges: Annotated[list[Range], key(unit="degree")]
    """Keep angles inside any of these [low, high], ends included; low > high wraps around 180."""
    include_angles: Annotated[list[Degrees], key(unit="degree")]
    """Keep angles within tolerance of any of these."""
    exclude_angles: Annotated[list[Degrees], key(unit="degree")]
    """Drop angles within tolerance of any of these."""
    tolerance: Annotated[float, key(1.0, unit="degree", ge=0, le=180)]
    """Largest distance at which an angle counts as one of those listed."""


class OutputConfig(TypedDict, total=False):
    """What is saved, and where."""

    output_dir: Annotated[str, key("twotime_results")]
    """Folder of the results, relative to this file."""
    save_correlation: Annotated[bool, key(False)]
    """Save measured and fitted c2 of every point (arrays.npz), not only what figures show."""
    save_residuals: Annotated[bool, key(False)]
    """Save the residual of every point (arrays.npz), not only what figures show."""
    figures: Annotated[bool, key(True)]
    """Draw figures."""
    figure_format: Annotated[Literal["png", "pdf", "svg"], key("png")]
    """Format of the figures."""
    format: Annotated[Literal["npz"], key("npz")]
    """Format of saved arrays, the only one."""


class StreamingConfig(TypedDict, total=False):
    """Fitting tile by tile."""

    enable: Annotated[bool, key(False)]
    """Process c2 tile by tile (optimization.nlsq.evaluator: tiled)."""
    chunk_size: Annotated[int, key(128, unit="frame", ge=8, le=10**5)]
    """Frames along the side of a tile."""
    buffer_size: Annotated[int, key(refused=True)]
    """There is no buffer. Use hardware.memory_limit_gb to limit memory."""


class StratificationConfig(TypedDict, total=False):
    """Stratified shards (shard_strategy: random)."""

    enable: Annotated[bool, key(False)]
    """Give every shard an equal part of every stratum."""
    n_strata: Annotated[int, key(4, ge=1, le=10**4)]
    """Bands of t2 - t1 with strategy: lag."""
    strategy: Annotated[Literal["angle", "lag"], key("angle")]
    """Strata are angles, or bands of t2 - t1 in each angle."""


class SequentialConfig(TypedDict, total=False):
    """Fitting one angle after the other."""

    enable: Annotated[bool, key(False)]
    """Fit angle by angle instead of all together. Each angle has its own parameters and starts
    where the last converged one ended. The folder holds one result for each angle."""
    max_iterations: Annotated[int, key(otherwise="that of nlsq", ge=1, le=10**6)]
    """Largest number of solver steps of each angle's fit."""
    convergence_threshold: Annotated[float, key(otherwise="tolerance of nlsq", ge=1e-12, le=1)]
    """Tolerance of each angle's fit."""


class HardwareConfig(TypedDict, total=False):
    """Device and memory."""

    device: Annotated[Literal["auto", "cpu", "gpu", "tpu"], key("auto")]
    """Kind of device the command line computes on; auto is JAX's choice."""
    n_threads: Annotated[int, key(refused=True)]
    """Limit threads from outside, on Linux: taskset -c 0-3 twotime fit run.yaml."""
    memory_limit_gb: Annotated[float, key(unit="GB", otherwise="no limit", gt=0, le=1e6)]
    """Data that need more memory than this are an error before they are read."""
    numa_aware: Annotated[bool, key(refused=True)]
    """Bind from outside: numactl --cpunodebind=0 --membind=0 twotime fit run.yaml."""


class LoggingConfig(TypedDict, total=False):
    """Messages of the command line."""

    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], key("INFO")]
    """Least important messages that are shown."""
    file: Annotated[str, key(otherwise="none")]
    """File that also receives the messages, relative to this file."""
    structured: Annotated[bool, key(False)]
    """Write the log file as one JSON object per line."""
    log_convergence: Annotated[bool, key(False)]
    """Log χ² and step of every iteration of a fit."""


class MetadataConfig(TypedDict, total=False):
    """Notes about the experiment, copied into result.json and report.md."""

    experiment_id: str
    """Number or name of the experiment."""
    operator: str
    """Who measured."""
    beamline: str
    """Where it was measured."""
    sample_name: str
    """What was measured."""
    notes: str
    """Anything else."""


class AnalysisConfig(TypedDict, total=False):
    """Short form of the most used settings; each stands for a key elsewhere."""

    method: Annotated[Method, key(same="optimization.method")]
    phi_angles: Annotated[list[Degrees], key(unit="degree", same=f"{_SCATTERING}.phi_angles")]
    q: Annotated[Wavevector, key(unit="1/Å", same=f"{_SCATTERING}.wavevector_q")]
    dt: Annotated[Seconds, key(unit="s", same="analyzer_parameters.dt")]
    scaling_mode: Annotated[PerAngleMode, key(same="optimization.nlsq.per_angle_mode")]


class HeterodyneConfig(TypedDict, total=False):
    """A complete configuration."""

    analysis_mode: Annotated[AnalysisMode, key("two_component")]
    """Which model is fitted."""
    experimental_data: ExperimentalDataConfig
    analyzer_parameters: AnalyzerParametersConfig
    model: ModelConfig
    parameters: ParametersConfig
    initial_parameters: InitialParametersConfig
    optimization: OptimizationConfig
    phi_filtering: PhiFilteringConfig
    output: OutputConfig
    streaming: StreamingConfig
    stratification: StratificationConfig
    sequential: SequentialConfig
    hardware: HardwareConfig
    logging: LoggingConfig
    metadata: MetadataConfig
    analysis: AnalysisConfig
    temporal: TemporalConfig
    scattering: ScatteringConfig
