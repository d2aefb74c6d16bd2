"""The detector that a simulated APS-U file shows: maps of bins, images and one-time results.

Simulated correlations have no image. Viewers of 8-ID files need one, so a detector is made up on
which every wavevector is a ring and every angle a sector; its intensities are relative, 1 where
there is light.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

Curves = Float[np.ndarray, "lag angle"]

PIXEL, ENERGY = 75e-6, 10.0
"""Size of a pixel [m] and photon energy [keV]."""
_HC = 12.398  # [keV Å], as viewers of 8-ID files take it
_RADIUS, _LARGEST_RADIUS, _PER_ANGLE, _PER_RING = 24, 800, 2, 4  # [pixel]
_WIDTH, _EDGE = 6, 8  # half width of a ring that stands alone, and what is around [pixel]
_LARGEST_SINE = 0.5
_STATIC = 5
_SEGMENTS = 5
_STABILITY = 10


class Detector(NamedTuple):
    """Pixels of a detector on which wavevectors are rings and angles are sectors.

    Attributes:
        energy: Photon energy [keV].
        distance: From sample to detector [m].
        centre: Row and column of the beam, the same number [pixel].
        regions: Number of the bin that a pixel belongs to, from 1; 0 for none.
        rings: Number of the static ring that a pixel belongs to, from 1; 0 for none.
        q_rings: Wavevector of the static rings [1/Å].
    """

    energy: float
    distance: float
    centre: float
    regions: Int[np.ndarray, "row column"]
    rings: Int[np.ndarray, "row column"]
    q_rings: Float[np.ndarray, " ring"]


def detector_for(
    q: Float[np.ndarray, " ring"], phi: Float[np.ndarray, " sector"], place: Int[np.ndarray, " bin"]
) -> Detector:
    """A detector with pixels for the bins of a map, and none for its other places.

    Args:
        q: Wavevectors of the map, rising [1/Å].
        phi: Angles of the map [degree], anticlockwise from the right.
        place: Places of the bins in the grid of q and phi, from 0, rising.
    """
    closest = np.min(np.diff(q), initial=q[-1]) / q[-1]
    radius = max(_RADIUS, _PER_ANGLE * phi.size, min(_PER_RING / closest, _LARGEST_RADIUS))
    energy = max(ENERGY, _HC * q[-1] / (2 * np.pi * _LARGEST_SINE))
    per_q = _HC / (2 * np.pi * energy)
    distance = radius * PIXEL / np.tan(np.arcsin(q[-1] * per_q))
    centre = np.ceil(radius) + _EDGE - 0.5
    row, column = np.indices((int(2 * centre + 1),) * 2) - centre
    r, turned = np.hypot(row, column), np.rad2deg(-np.arctan2(row, column))
    r_of_q = distance / PIXEL * np.tan(np.arcsin(q * per_q))
    between = 0.5 * (r_of_q[1:] + r_of_q[:-1])
    ring = np.digitize(r, between)
    apart = np.abs((turned[..., None] - phi + 180) % 360 - 180)
    number = np.zeros(q.size * phi.size, int)
    number[place] = np.arange(1, place.size + 1)
    regions = number[ring * phi.size + np.argmin(apart, axis=-1)]
    regions[np.abs(r - r_of_q[ring]) >= _WIDTH] = 0
    edges = np.linspace(r_of_q[0] - _WIDTH, r_of_q[-1] + _WIDTH, _STATIC + 1)
    rings = np.where(regions > 0, np.clip(np.digitize(r, edges), 1, _STATIC), 0)
    middle = 0.5 * (edges[1:] + edges[:-1])
    q_rings = np.sin(np.arctan(middle * PIXEL / distance)) / per_q
    return Detector(float(energy), float(distance), float(centre), regions, rings, q_rings)


def shown(detector: Detector, c2: Float[np.ndarray, "angle time time"]) -> dict[str, Any]:
    """Datasets of an APS-U file that viewers ask for, by their names.

    Args:
        detector: The detector.
        c2: Correlations; what does not count is NaN.
    """
    n_frames = c2.shape[-1]
    light = (detector.regions > 0).astype(np.float32)
    of_rings = np.ones((1, _STATIC), np.float32)
    length = max(n_frames // _SEGMENTS, 1)
    starts = [k * length for k in range(min(_SEGMENTS, n_frames))]
    parts = [c2[:, k : k + length, k : k + length] for k in starts]
    return {
        "entry/start_time": "1970-01-01 00:00:00",
        "entry/instrument/bluesky/metadata/source": "simulated",
        "entry/instrument/incident_beam/incident_energy": detector.energy,
        "entry/instrument/detector_1/distance": detector.distance,
        "entry/instrument/detector_1/x_pixel_size": PIXEL,
        "entry/instrument/detector_1/y_pixel_size": PIXEL,
        "xpcs/qmap/mask": detector.regions > 0,
        "xpcs/qmap/dynamic_roi_map": detector.regions.astype(np.uint16),
        "xpcs/qmap/static_roi_map": detector.rings.astype(np.uint16),
        "xpcs/qmap/static_v_list_dim0": detector.q_rings,
        "xpcs/qmap/static_v_list_dim1": np.zeros(1),
        "xpcs/qmap/static_num_pts": np.array([_STATIC, 1]),
        "xpcs/qmap/static_index_mapping": np.arange(_STATIC),
        "xpcs/qmap/beam_center_x": detector.centre,
        "xpcs/qmap/beam_center_y": detector.centre,
        "xpcs/qmap/detector_distance": detector.distance,
        "xpcs/qmap/pixel_size": PIXEL,
        "xpcs/qmap/energy": detector.energy,
        "xpcs/temporal_mean/scattering_2d": light[None],
        "xpcs/temporal_mean/scattering_1d": of_rings,
        "xpcs/temporal_mean/scattering_1d_segments": np.repeat(of_rings, _STABILITY, axis=0),
        "xpcs/spatial_mean/intensity_vs_time": np.stack(
            [np.arange(n_frames), np.ones(n_frames)]
        ).astype(np.float32),
        "xpcs/twotime/normalized_g2": one_time(c2).astype(np.float32),
        "xpcs/twotime/normalized_g2_segments": np.stack(
            [one_time(part) for part in parts], axis=1
        ).astype(np.float32),
        "xpcs/twotime/delay_list": np.arange(n_frames),
    }


def one_time(c2: Float[np.ndarray, "angle time time"]) -> Curves:
    """Mean of c2 at each lag over the points that count; NaN where there are none."""
    n_frames = c2.shape[-1]
    g2 = np.full((n_frames, c2.shape[0]), np.nan)
    for lag in range(n_frames):
        values = np.diagonal(c2, lag, 1, 2)
        count = np.isfinite(values).sum(axis=1)
        total = np.nansum(values, axis=1)
        g2[lag] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return g2
