"""Sections of the configuration: every key with its type, unit, default and effect.

This is the one place where a key is written. Validation, JSON schema, the table in
`docs/configuration.md` and the full template are made from it. No section needs all its keys
(`total=False`): what is needed depends on the model, see `twotime.config.rules`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from typing_extensions import TypedDict

from twotime.config.keys import Key
from twotime.config.parameter_names import PARAMETER_GROUPS, AnalysisMode
from twotime.config.parameter_registry import REGISTRIES
from twotime.models import LAWS
from twotime.models.laminar_flow import ShearConvention as ShearConvention
from twotime.models.rates import Integration as Integration
from twotime.models.scaling import PerAngleMode

_LARGEST = 1e30

Number = Annotated[float, Key("", ge=-_LARGEST, le=_LARGEST)]
Degrees = Annotated[float, Key("", ge=-360, le=360)]
FileFormat = Literal["auto", "aps-u", "aps-old", "esrf", "nxxpcs", "hdf5", "npz", "npy"]
PriorName = Literal[
    "uniform", "normal", "truncated_normal", "lognormal", "halfnormal", "exponential", "beta_scaled"
]


class ParameterConfig(TypedDict, total=False):
    """Configuration of one parameter; a bare number in its place is its value."""

    value: Annotated[
        float,
        Key(
            "Value of a fixed parameter, start of a varying one, in the parameter's unit.",
            default_text="the parameter's default",
            ge=-_LARGEST,
            le=_LARGEST,
        ),
    ]
    min: Annotated[
        float,
        Key(
            "Lower bound; given together with max.",
            default_text="the parameter's bound",
            ge=-_LARGEST,
            le=_LARGEST,
        ),
    ]
    max: Annotated[
        float,
        Key(
            "Upper bound; given together with min.",
            default_text="the parameter's bound",
            ge=-_LARGEST,
            le=_LARGEST,
        ),
    ]
    vary: Annotated[bool, Key("Whether it is fitted (true) or fixed (false).", default=True)]
    prior: Annotated[
        PriorName,
        Key(
            "Prior distribution for sampling.",
            default_text="truncated_normal of the parameter's default location and scale, "
            "cut to the bounds",
        ),
    ]
    prior_params: Annotated[
        dict[str, Number],
        Key(
            "Numbers of the prior: uniform low, high; normal loc, scale; truncated_normal "
            "loc, scale, low, high; lognormal loc, scale (of the logarithm); halfnormal "
            "scale; exponential rate; beta_scaled low, high, concentration1, "
            "concentration2. low and high may be left out: they are the bounds."
        ),
    ]


_Parameter = Annotated[ParameterConfig, Key("See Parameters.")]


def _sections(about: str, name: str, keys: Mapping[str, Any]) -> Any:
    """A section whose keys follow from the laws."""
    section: Any = TypedDict(name, dict(keys), total=False)  # type: ignore[misc, operator]
    section.__doc__ = about
    return section


def _settings(*sections: str) -> dict[str, Any]:
    """Keys of a section that are arguments of laws."""
    settings = (setting for law in LAWS.values() for setting in law.settings)
    return {
        setting.path[-1]: Annotated[
            setting.kind,
            Key(
                setting.effect,
                setting.unit,
                default=setting.default,
                gt=setting.gt,
                le=setting.le,
            ),
        ]
        for setting in settings
        if setting.path[:-1] == sections
    }


if TYPE_CHECKING:
    ParameterGroupConfig = ParametersConfig = GeometryConfig = ModelConfig = dict[str, Any]
else:
    ParameterGroupConfig = _sections(
        "Parameters of one group; which names it takes depends on the group.",
        "ParameterGroupConfig",
        {name: _Parameter for registry in REGISTRIES.values() for name in registry},
    )
    _Group = Annotated[ParameterGroupConfig, Key("Parameters of this group.")]
    _NAMES = dict.fromkeys(name for groups in PARAMETER_GROUPS.values() for name in groups)
    _GROUPS = {name: _Group for name in sorted(_NAMES, key="scaling".__eq__)}
    ParametersConfig = _sections(
        "Parameters by group, or each directly by its name.", "ParametersConfig", _GROUPS
    )
    GeometryConfig = _sections(
        "Geometry of the shear cell.",
        "GeometryConfig",
        _settings("analyzer_parameters", "geometry"),
    )
    ModelConfig = _sections("How the model is evaluated.", "ModelConfig", _settings("model"))


class InitialParametersConfig(TypedDict, total=False):
    """Flat form of the parameters; `parameters` wins where both speak."""

    parameter_names: Annotated[list[str], Key("Names, in the order of values.")]
    values: Annotated[list[Number], Key("One value for each name.")]
    active_parameters: Annotated[
        list[str],
        Key(
            "Names that vary; every other physics parameter is fixed. Contrast and offset "
            "are fixed by it only where parameter_names lists them.",
            default_text="those that vary by default",
        ),
    ]


class ExperimentalDataConfig(TypedDict, total=False):
    """Experimental data file configuration."""

    file_path: Annotated[str, Key("Data file; relative to data_folder_path or this file's folder.")]
    data_folder_path: Annotated[str, Key("Folder of file_path.", default_text="this file's folder")]
    file_format: Annotated[
        FileFormat, Key("Layout of the file; auto recognises it.", default="auto")
    ]
    roi_axis: Annotated[
        Literal["first", "last"],
        Key("Axis of a three-dimensional npy array that counts the matrices.", default="first"),
    ]
    average_triangles: Annotated[
        bool,
        Key(
            "Average the two triangles of matrices that are not symmetric; such a file is "
            "an error otherwise.",
            default=False,
        ),
    ]
    cache_file_path: Annotated[
        str,
        Key(
            "Folder for caches of the selected data.",
            default_text="data_folder_path; without it no cache is kept",
        ),
    ]
    cache_filename_template: Annotated[
        str,
        Key(
            "Name of the cache file with ${wavevector_q}, ${start_frame}, ${end_frame}.",
            default_text="named by the data's own key",
        ),
    ]
    cache_compression: Annotated[bool, Key("Whether cache files are compressed.", default=True)]


class ScatteringConfig(TypedDict, total=False):
    """Scattering geometry configuration."""

    wavevector_q: Annotated[
        float, Key("Selects the file's q nearest to it, all its angles.", "1/Å", gt=0, le=1e3)
    ]
    q_tolerance: Annotated[
        float,
        Key(
            "Largest relative distance of the file's q from wavevector_q.", default=0.05, ge=0, lt=1
        ),
    ]
    phi_angles: Annotated[
        list[Degrees],
        Key(
            "Angles to analyse, each of which the file must hold; they name the matrices of "
            "a file that does not say its angles, and are the angles of `twotime simulate`.",
            "degree",
            default_text="all the file's",
        ),
    ]


class _AnalyzerKeys(TypedDict, total=False):
    dt: Annotated[float, Key("Time between frames.", "s", default_text="the file's", gt=0, le=1e9)]
    dt_source: Annotated[
        Literal["config", "file"],
        Key(
            "Which dt counts where this file and the data file disagree.",
            default_text="disagreement is an error",
        ),
    ]
    start_frame: Annotated[int, Key("First frame, counted from 1.", default=1, ge=1, le=10**9)]
    end_frame: Annotated[
        int, Key("Last frame, included; -1 is the data's last.", default=-1, ge=-1, le=10**9)
    ]
    t0: Annotated[
        float,
        Key(
            "Time of the first selected frame.", "s", default_text="start_frame · dt", ge=0, le=1e9
        ),
    ]
    scattering: Annotated[ScatteringConfig, Key("Wavevector and angles.")]
    geometry: Annotated[GeometryConfig, Key("Shear cell.")]


if TYPE_CHECKING:
    AnalyzerParametersConfig = _AnalyzerKeys
else:
    AnalyzerParametersConfig = _sections(
        "Time axis, scattering and geometry; also takes the groups of `parameters`.",
        "AnalyzerParametersConfig",
        get_type_hints(_AnalyzerKeys, include_extras=True) | _GROUPS,
    )


class TemporalConfig(TypedDict, total=False):
    """Older form of the time axis; `analyzer_parameters` is the newer."""

    dt: Annotated[float, Key("analyzer_parameters.dt.", "s", gt=0, le=1e9)]
    time_length: Annotated[
        int, Key("Number of frames: end_frame is t_start + time_length.", ge=2, le=10**9)
    ]
    t_start: Annotated[
        int, Key("First frame, counted from 0: start_frame - 1.", default=0, ge=0, le=10**9)
    ]


class NLSQOptimizationConfig(TypedDict, total=False):
    """NLSQ optimization configuration."""

    max_iterations: Annotated[int, Key("Steps of the solver at most.", default=300, ge=1, le=10**6)]
    tolerance: Annotated[
        float,
        Key(
            "Converged when the projected gradient and the step left are below this, in "
            "standard deviations of the parameters.",
            default=3e-2,
            ge=1e-12,
            le=1,
        ),
    ]
    method: Annotated[
        Literal["lm"],
        Key("Solver: Levenberg-Marquardt with bounds, the only one there is.", default="lm"),
    ]
    multistart: Annotated[
        bool, Key("Fit from multistart_n starts and keep the best.", default=False)
    ]
    multistart_n: Annotated[
        int, Key("Number of starts with multistart: true.", default=8, ge=2, le=10**4)
    ]
    seed: Annotated[int, Key("Seed of the random starts.", default=0, ge=0, lt=2**32)]
    start: Annotated[
        Literal["auto", "data", "values"],
        Key(
            "Where a fit starts: at the values; at estimates from the data; auto: at the "
            "values that are given, and at estimates for the others.",
            default="auto",
        ),
    ]
    per_angle_mode: Annotated[
        PerAngleMode,
        Key(
            "Contrast and offset: a pair per angle, one pair, frozen estimates, a Fourier "
            "series in the angle; auto: averaged from 3 angles on, else individual. The "
            "same in fitting and sampling.",
            default="auto",
        ),
    ]
    evaluator: Annotated[
        Literal["auto", "tiled", "factored"],
        Key(
            "How sums over pixels are formed; factored is faster and needs a separable "
            "model (not laminar_flow) and loss: linear.",
            default="auto",
        ),
    ]
    loss: Annotated[
        Literal["linear", "soft_l1", "huber"],
        Key(
            "Loss of a pixel's residual; the robust ones bound what an outlier counts, by "
            "weights on every pixel (evaluator tiled).",
            default="linear",
        ),
    ]
    loss_scale: Annotated[
        float,
        Key(
            "Residual from which a robust loss departs from the square, in noise levels: 1.4826 "
            "times the median size of an angle's residuals.",
            default=1.0,
            gt=0,
            le=1e6,
        ),
    ]
    nlsq_prior_width_factor: Annotated[
        float,
        Key(
            "Sampling after a fit: replace the priors of varying parameters by normals "
            "about the fit, this many robust standard deviations wide, cut to the bounds.",
            default_text="priors stay as they are",
            gt=0,
            le=1e6,
            aliases=("prior_width_factor",),
        ),
    ]


class CMCShardingConfig(TypedDict, total=False):
    """Sharding configuration for Consensus Monte Carlo."""

    n_shards: Annotated[
        int,
        Key("Shards the pixels are dealt to; 1 samples all of them.", default=1, ge=1, le=10**5),
    ]
    shard_strategy: Annotated[
        Literal["random", "interleaved", "contiguous", "angles"],
        Key(
            "How pixels are dealt: random within each angle, every n-th row, blocks of "
            "rows, or whole angles.",
            default="random",
        ),
    ]
    min_pairs_per_shard: Annotated[
        int, Key("A shard with fewer pixels is an error.", default=1000, ge=1, le=10**12)
    ]


class CMCInitializationConfig(TypedDict, total=False):
    """Initialization strategy for CMC chains."""

    method: Annotated[
        Literal["nlsq", "prior"],
        Key("Chains start about a fit made first, or at draws of the prior.", default="nlsq"),
    ]
    nlsq_chi2_threshold: Annotated[
        float,
        Key(
            "A fit with a larger reduced χ² is not sampled from: an error.",
            default_text="no limit",
            gt=0,
            le=1e12,
        ),
    ]
    jitter_scale: Annotated[
        float,
        Key(
            "Spread of the chains' starts about the fit, in its standard deviations.",
            default=1.0,
            ge=0,
            le=100,
        ),
    ]


class CMCBackendConfig(TypedDict, total=False):
    """Backend configuration for CMC sampling."""

    sampler: Annotated[
        Literal["nuts", "hmc"],
        Key("Sampler; hmc takes the section optimization.hmc.", default="nuts"),
    ]
    jit_compile: Annotated[
        Literal[True], Key("Sampling is always compiled; false is not possible.", default=True)
    ]
    progress_bar: Annotated[bool, Key("Show progress while sampling.", default=True)]


class CMCValidationConfig(TypedDict, total=False):
    """Convergence validation criteria for CMC."""

    max_r_hat: Annotated[
        float,
        Key(
            "Largest R-hat of a converged result.",
            default=1.01,
            gt=1,
            le=10,
            aliases=("r_hat_threshold",),
        ),
    ]
    min_ess: Annotated[
        int,
        Key("Smallest effective sample size of a converged result.", default=400, ge=1, le=10**9),
    ]
    min_bfmi: Annotated[float, Key("Smallest BFMI of a converged result.", default=0.3, ge=0, le=2)]
    max_divergences: Annotated[
        int, Key("Most divergent draws of a converged result.", default=0, ge=0, le=10**9)
    ]


class CMCCombinationConfig(TypedDict, total=False):
    """Shard combination strategy for CMC."""

    method: Annotated[
        Literal["importance", "consensus", "gaussian"],
        Key(
            "Draws of the shards averaged with their precisions, the product of their Gaussians, "
            "or draws of this product weighted by the posterior of all pixels (importance).",
            default="importance",
        ),
    ]
    weights: Annotated[
        list[float],
        Key(
            "Weights of the shards.",
            refused="shards are weighted by their own precision matrices; weights set by "
            "hand would give another posterior than the data's. Delete the key.",
        ),
    ]


class CMCPerShardMCMCConfig(TypedDict, total=False):
    """Per-shard MCMC sampler settings."""

    num_warmup: Annotated[int, Key("Warm-up draws of each chain.", default=500, ge=10, le=10**7)]
    num_samples: Annotated[int, Key("Kept draws of each chain.", default=1000, ge=10, le=10**8)]
    num_chains: Annotated[int, Key("Chains of each shard.", default=4, ge=1, le=10**4)]
    target_accept_prob: Annotated[
        float,
        Key(
            "Acceptance the step size is adapted to.",
            default=0.9,
            gt=0,
            lt=1,
            aliases=("target_accept",),
        ),
    ]
    max_tree_depth: Annotated[
        int, Key("Doublings of a NUTS trajectory at most.", default=10, ge=1, le=20)
    ]


class CMCOptimizationConfig(TypedDict, total=False):
    """CMC (Consensus Monte Carlo) configuration."""

    enable: Annotated[
        Literal["auto", "always", "never"],
        Key(
            "auto: sample where optimization.method says so; always: also after method: "
            "nlsq; never contradicts method: cmc or both.",
            default="auto",
        ),
    ]
    num_warmup: Annotated[int, Key("The same as per_shard_mcmc.num_warmup.", ge=10, le=10**7)]
    num_samples: Annotated[int, Key("The same as per_shard_mcmc.num_samples.", ge=10, le=10**8)]
    num_chains: Annotated[int, Key("The same as per_shard_mcmc.num_chains.", ge=1, le=10**4)]
    target_accept_prob: Annotated[
        float,
        Key(
            "The same as per_shard_mcmc.target_accept_prob.", gt=0, lt=1, aliases=("target_accept",)
        ),
    ]
    max_tree_depth: Annotated[int, Key("The same as per_shard_mcmc.max_tree_depth.", ge=1, le=20)]
    max_r_hat: Annotated[
        float, Key("The same as validation.max_r_hat.", gt=1, le=10, aliases=("r_hat_threshold",))
    ]
    seed: Annotated[int, Key("Seed of the sampler.", default=0, ge=0, lt=2**32)]
    width_correction: Annotated[
        Literal["sandwich", "tempering", "none"],
        Key(
            "How the posterior's width is corrected for speckle noise that pixels share.",
            default="sandwich",
        ),
    ]
    sharding: Annotated[CMCShardingConfig, Key("How pixels are dealt to shards.")]
    initialization: Annotated[CMCInitializationConfig, Key("Where chains start.")]
    backend: Annotated[CMCBackendConfig, Key("Which sampler runs.")]
    validation: Annotated[CMCValidationConfig, Key("When a result has converged.")]
    combination: Annotated[CMCCombinationConfig, Key("How shards are combined.")]
    per_shard_mcmc: Annotated[CMCPerShardMCMCConfig, Key("Draws of each shard.")]


class HmcConfig(TypedDict, total=False):
    """HMC-specific sampler configuration; needs optimization.cmc.backend.sampler: hmc."""

    step_size: Annotated[
        float,
        Key("Step of the integrator; where it is adapted, its start.", default=0.5, gt=0, le=100),
    ]
    num_leapfrog_steps: Annotated[int, Key("Steps of a trajectory.", default=10, ge=1, le=10**4)]
    adapt_step_size: Annotated[bool, Key("Adapt the step size in the warm-up.", default=True)]
    adapt_mass_matrix: Annotated[bool, Key("Adapt the mass matrix in the warm-up.", default=True)]


class OptimizationConfig(TypedDict, total=False):
    """Full optimization configuration."""

    method: Annotated[
        Literal["nlsq", "cmc", "both"],
        Key("Fit, sample, or both one after the other.", default="nlsq"),
    ]
    nlsq: Annotated[NLSQOptimizationConfig, Key("Least squares.")]
    cmc: Annotated[CMCOptimizationConfig, Key("Consensus Monte Carlo.")]
    hmc: Annotated[HmcConfig, Key("Hamiltonian Monte Carlo.")]


class PhiFilteringConfig(TypedDict, total=False):
    """Phi-angle filtering configuration; what is left is analysed."""

    ranges: Annotated[
        list[tuple[Degrees, Degrees]],
        Key(
            "Keep angles inside any of these [low, high], ends included; low > high wraps "
            "around 180.",
            "degree",
        ),
    ]
    include_angles: Annotated[
        list[Degrees], Key("Keep angles within tolerance of any of these.", "degree")
    ]
    exclude_angles: Annotated[
        list[Degrees], Key("Drop angles within tolerance of any of these.", "degree")
    ]
    tolerance: Annotated[
        float,
        Key(
            "Distance at which an angle counts as one that is named.",
            "degree",
            default=1.0,
            ge=0,
            le=180,
        ),
    ]


class OutputConfig(TypedDict, total=False):
    """Output configuration."""

    output_dir: Annotated[
        str, Key("Folder of the results, relative to this file.", default="twotime_results")
    ]
    save_correlation: Annotated[
        bool, Key("Save measured and fitted c2 (arrays.npz).", default=True)
    ]
    save_residuals: Annotated[bool, Key("Save the residuals (arrays.npz).", default=True)]
    format: Annotated[Literal["npz"], Key("Format of saved arrays, the only one.", default="npz")]


class StreamingConfig(TypedDict, total=False):
    """Streaming of pixels through the fit."""

    enable: Annotated[
        bool,
        Key("Visit the pixels tile by tile (optimization.nlsq.evaluator: tiled).", default=False),
    ]
    chunk_size: Annotated[
        int, Key("Frames along the side of a tile.", "frame", default=128, ge=8, le=10**5)
    ]
    buffer_size: Annotated[
        int,
        Key(
            "Size of a read buffer.",
            refused="the selected matrices are in memory once and tiles are cut from them, "
            "so there is no buffer. Use hardware.memory_limit_gb to limit memory.",
        ),
    ]


class StratificationConfig(TypedDict, total=False):
    """Stratified dealing of pixels to shards (shard_strategy: random)."""

    enable: Annotated[bool, Key("Deal equal parts of every stratum to every shard.", default=False)]
    n_strata: Annotated[int, Key("Bands of t2 - t1 with strategy: lag.", default=4, ge=1, le=10**4)]
    strategy: Annotated[
        Literal["angle", "lag"],
        Key("Strata are angles, or bands of t2 - t1 in each angle.", default="angle"),
    ]


class SequentialConfig(TypedDict, total=False):
    """Fitting one angle after the other."""

    enable: Annotated[
        bool,
        Key(
            "Fit angle by angle instead of all together: each has parameters of its own and "
            "starts where the last that converged ended; the folder holds one of each angle.",
            default=False,
        ),
    ]
    max_iterations: Annotated[
        int,
        Key(
            "Steps of each angle's fit at most.",
            default_text="optimization.nlsq.max_iterations",
            ge=1,
            le=10**6,
        ),
    ]
    convergence_threshold: Annotated[
        float,
        Key(
            "Tolerance of each angle's fit.",
            default_text="optimization.nlsq.tolerance",
            ge=1e-12,
            le=1,
        ),
    ]


class HardwareConfig(TypedDict, total=False):
    """Hardware and resource configuration."""

    device: Annotated[
        Literal["auto", "cpu", "gpu", "tpu"],
        Key("Kind of device the command line computes on; auto is JAX's choice.", default="auto"),
    ]
    n_threads: Annotated[
        int,
        Key(
            "Threads of the processor.",
            refused="XLA sizes its threads when the process starts. Limit them from "
            "outside, on Linux: taskset -c 0-3 twotime fit run.yaml.",
        ),
    ]
    memory_limit_gb: Annotated[
        float,
        Key(
            "Data that would need more memory than this are an error before they are read.",
            "GB",
            default_text="no limit",
            gt=0,
            le=1e6,
        ),
    ]
    numa_aware: Annotated[
        bool,
        Key(
            "Placement on NUMA nodes.",
            refused="JAX does not place memory on NUMA nodes. Bind the process from "
            "outside: numactl --cpunodebind=0 --membind=0 twotime fit run.yaml.",
        ),
    ]


class LoggingConfig(TypedDict, total=False):
    """Logging of the command line."""

    level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        Key("Least important messages that are shown.", default="INFO"),
    ]
    file: Annotated[
        str, Key("File that messages go to as well, relative to this file.", default_text="none")
    ]
    structured: Annotated[bool, Key("Write the log file as one JSON object a line.", default=False)]
    log_convergence: Annotated[
        bool, Key("Log χ² and step of every iteration of a fit.", default=False)
    ]


class MetadataConfig(TypedDict, total=False):
    """Experiment metadata, copied into result.json and report.md."""

    experiment_id: Annotated[str, Key("Number or name of the experiment.")]
    operator: Annotated[str, Key("Who measured.")]
    beamline: Annotated[str, Key("Where it was measured.")]
    sample_name: Annotated[str, Key("What was measured.")]
    notes: Annotated[str, Key("Anything else.")]


class AnalysisConfig(TypedDict, total=False):
    """Short form of the settings used most; each stands for a key elsewhere."""

    method: Annotated[Literal["nlsq", "cmc", "both"], Key("The same as optimization.method.")]
    phi_angles: Annotated[
        list[Degrees], Key("The same as analyzer_parameters.scattering.phi_angles.", "degree")
    ]
    q: Annotated[
        float, Key("The same as analyzer_parameters.scattering.wavevector_q.", "1/Å", gt=0, le=1e3)
    ]
    dt: Annotated[float, Key("The same as analyzer_parameters.dt.", "s", gt=0, le=1e9)]
    scaling_mode: Annotated[PerAngleMode, Key("The same as optimization.nlsq.per_angle_mode.")]


class HeterodyneConfig(TypedDict, total=False):
    """Complete analysis configuration."""

    analysis_mode: Annotated[AnalysisMode, Key("Which model is fitted.", default="two_component")]
    experimental_data: Annotated[ExperimentalDataConfig, Key("The data file.")]
    analyzer_parameters: Annotated[
        AnalyzerParametersConfig, Key("Time axis, wavevector, geometry.")
    ]
    model: Annotated[ModelConfig, Key("How the model is evaluated.")]
    parameters: Annotated[ParametersConfig, Key("Values, bounds and priors.")]
    initial_parameters: Annotated[InitialParametersConfig, Key("Flat form of parameters.")]
    optimization: Annotated[OptimizationConfig, Key("Fitting and sampling.")]
    phi_filtering: Annotated[PhiFilteringConfig, Key("Which angles are used.")]
    output: Annotated[OutputConfig, Key("What is saved where.")]
    streaming: Annotated[StreamingConfig, Key("Pixels tile by tile.")]
    stratification: Annotated[StratificationConfig, Key("Strata of the shards.")]
    sequential: Annotated[SequentialConfig, Key("Angle after angle.")]
    hardware: Annotated[HardwareConfig, Key("Device and memory.")]
    logging: Annotated[LoggingConfig, Key("Messages.")]
    metadata: Annotated[MetadataConfig, Key("Notes about the experiment.")]
    analysis: Annotated[AnalysisConfig, Key("Short form of other keys.")]
    temporal: Annotated[TemporalConfig, Key("Older form of the time axis.")]
    scattering: Annotated[ScatteringConfig, Key("The same as analyzer_parameters.scattering.")]
