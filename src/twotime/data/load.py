"""The data that a configuration asks for."""

from twotime.config.manager import ConfigManager
from twotime.data.cache import Cache, load_cached
from twotime.data.dataset import TwoTimeData
from twotime.data.prepare import LoadReport, load_file
from twotime.data.selection import PhiFilter, Selection


def load_data(config: ConfigManager) -> TwoTimeData:
    """Read, select and check the data a configuration asks for.

    Args:
        config: A validated configuration.

    Returns:
        One wavevector: its matrices, frame times and angles.

    Raises:
        DataNotFoundError: If there is no such file.
        DataError: If the file is damaged or does not hold what is asked for.
    """
    return load_with_report(config)[0]


def load_with_report(config: ConfigManager) -> tuple[TwoTimeData, LoadReport]:
    """As `load_data`, with an account of the source and of what was left out.

    Args:
        config: A validated configuration.

    Raises:
        DataNotFoundError: If there is no such file.
        DataError: If the file is damaged or does not hold what is asked for.
    """
    selection = selection_from(config)
    if config.cache_file_path is None:
        return load_file(config.data_file_path, selection)
    cache = Cache(config.cache_file_path, config.cache_filename_template, config.cache_compression)
    return load_cached(config.data_file_path, selection, cache)


def selection_from(config: ConfigManager) -> Selection:
    """What a configuration asks to take from its file."""
    data = config.section("experimental_data")
    angles = config.phi_filtering
    limit = config.section("hardware").get("memory_limit_gb")
    return Selection(
        q=config.wavevector_q,
        q_tolerance=config.q_tolerance,
        phi_angles=None if config.phi_angles is None else tuple(config.phi_angles),
        phi=PhiFilter(
            ranges=tuple((float(low), float(high)) for low, high in angles.get("ranges", ())),
            include=tuple(float(angle) for angle in angles.get("include_angles", ())),
            exclude=tuple(float(angle) for angle in angles.get("exclude_angles", ())),
            tolerance=float(angles["tolerance"]),
        ),
        layout=config.file_format,
        roi_axis=data["roi_axis"],
        start_frame=config.start_frame,
        end_frame=config.end_frame,
        dt=config.dt,
        dt_source=config.dt_source,
        t0=config.t0,
        average_triangles=data["average_triangles"],
        memory_limit=None if limit is None else 1e9 * limit,
    )
