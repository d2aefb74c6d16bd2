"""Halves are completed, never doubled; what cannot be used is masked, left out or refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from twotime.data.matrices import read_matrices
from twotime.data.readers import open_source
from twotime.data.source import PlacedBin
from twotime.errors import DataError

N = 6
_NOISE = np.random.default_rng(1).normal(1.2, 0.1, (3, N, N))
FULL = np.triu(_NOISE) + np.swapaxes(np.triu(_NOISE, 1), 1, 2)


def read(tmp_path, c2, *, frames=slice(0, N), average_triangles=False, **extras):
    np.savez(tmp_path / "a.npz", c2=c2, q=0.01, phi=30.0 * np.arange(len(c2)), **extras)
    file = open_source(tmp_path / "a.npz")
    bins = tuple(PlacedBin(b.q, b.phi, b.dataset, b.position, b.last) for b in file.bins)
    return read_matrices(file, bins, frames, average_triangles=average_triangles)


@pytest.mark.parametrize("stored", [FULL, np.triu(FULL), np.tril(FULL)], ids=["full", "up", "low"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_storage_gives_the_same_full_matrix(tmp_path, stored, dtype):
    got = read(tmp_path, stored.astype(dtype))
    assert got.c2.dtype == dtype
    assert np.array_equal(got.c2, FULL.astype(dtype))
    assert got.notes == ()


def test_nan_below_the_diagonal_is_a_stored_half(tmp_path):
    stored = FULL.copy()
    stored[:, *np.tril_indices(N, -1)] = np.nan
    assert np.array_equal(read(tmp_path, stored).c2, FULL)


def test_only_the_diagonal_is_masked_in_clean_data(tmp_path):
    mask = read(tmp_path, np.triu(FULL)).mask
    assert np.array_equal(mask, np.broadcast_to(~np.eye(N, dtype=bool), mask.shape))


def test_frames_are_cut(tmp_path):
    got = read(tmp_path, np.triu(FULL), frames=slice(2, 5))
    assert np.array_equal(got.c2, FULL[:, 2:5, 2:5])


def test_pixels_that_are_not_finite_are_masked_and_left_as_they_are(tmp_path):
    stored = np.triu(FULL)
    stored[0, 1, 4] = np.nan
    stored[2, 0, 5] = np.inf
    got = read(tmp_path, stored)
    assert np.argwhere(np.triu(~got.mask, 1)).tolist() == [[0, 1, 4], [2, 0, 5]]
    assert np.isnan(got.c2[0, 1, 4]) and np.isnan(got.c2[0, 4, 1])
    assert np.array_equal(got.mask, np.swapaxes(got.mask, 1, 2))


@pytest.mark.parametrize("filling", [0.0, -1.0])
def test_bins_that_were_never_filled_are_left_out_and_named(tmp_path, filling):
    stored = np.triu(FULL)
    stored[1] = filling
    got = read(tmp_path, stored)
    assert [b.phi for b in got.kept] == [0.0, 60.0]
    assert [b.phi for b in got.empty] == [30.0]
    assert np.array_equal(got.c2, FULL[[0, 2]])
    assert got.mask.shape == got.c2.shape


def test_frames_without_light_are_masked_and_listed(tmp_path):
    stored = FULL.copy()
    stored[:, 3, :] = stored[:, :, 3] = 0
    got = read(tmp_path, stored, frames=slice(1, N))
    assert not got.mask[:, 2].any() and not got.mask[:, :, 2].any()
    assert got.mask.sum() == 3 * (5 * 4 - 2 * 4)
    assert got.notes == ("frames without light (every correlation 0) are masked: 4",)


def test_infinite_pixels_of_full_matrices(tmp_path):
    stored = FULL.copy()
    stored[0, 1, 2] = stored[0, 2, 1] = np.inf
    got = read(tmp_path, stored)
    assert np.argwhere(np.triu(~got.mask, 1)).tolist() == [[0, 1, 2]]
    assert got.notes == ("1.85% of the elements are infinite or above 1e+15 and masked",)


def test_nothing_filled_at_all_is_an_error(tmp_path):
    with pytest.raises(DataError, match="all 3 selected matrices are empty"):
        read(tmp_path, np.zeros((3, N, N)))


def test_a_matrix_of_nan_is_an_error_that_names_the_angle(tmp_path):
    stored = np.triu(FULL)
    stored[2] = np.nan
    with pytest.raises(DataError, match="phi = 60 degree .* has no usable point"):
        read(tmp_path, stored)


class TestAsymmetry:
    """A full matrix with two different halves."""

    @pytest.mark.parametrize("turned", [FULL[:, ::-1], FULL[:, :, ::-1]])
    def test_matrices_with_the_first_frame_below_are_told(self, tmp_path, turned):
        with pytest.raises(DataError, match="symmetric about its other diagonal"):
            read(tmp_path, turned, average_triangles=True)

    stored = FULL + 0.05 * np.tril(np.ones((N, N)), -1)

    def test_is_refused(self, tmp_path):
        with pytest.raises(DataError, match="not symmetric, its halves differ by up to 0.05"):
            read(tmp_path, self.stored)

    def test_is_averaged_when_asked(self, tmp_path):
        got = read(tmp_path, self.stored, average_triangles=True)
        off = ~np.eye(N, dtype=bool)
        assert got.c2[:, off] == pytest.approx(FULL[:, off] + 0.025)
        assert np.array_equal(got.c2, np.swapaxes(got.c2, 1, 2))
        assert len(got.notes) == 3

    def test_averaging_leaves_symmetric_matrices_alone(self, tmp_path):
        got = read(tmp_path, np.triu(FULL), average_triangles=True)
        assert np.array_equal(got.c2, FULL)
        assert got.notes == ()

    def test_rounding_is_no_asymmetry(self, tmp_path):
        nearly = FULL * (1 + 1e-7 * np.tril(np.ones((N, N)), -1))
        assert np.array_equal(read(tmp_path, nearly).c2, FULL)


def test_mask_and_sigma_of_the_file_follow_the_half_that_counts(tmp_path):
    mask = np.ones(FULL.shape, int)
    mask[1, 5, 0] = 0
    sigma = np.tril(np.full(FULL.shape, 0.1))
    sigma[0, 4, 2] = 0.3
    got = read(tmp_path, np.tril(FULL), mask=mask, sigma=sigma)
    assert np.argwhere(np.triu(~got.mask, 1)).tolist() == [[1, 0, 5]]
    assert got.sigma[0, 2, 4] == 0.3
    assert np.all(got.sigma[got.mask] > 0)


def test_one_sigma_for_all(tmp_path):
    got = read(tmp_path, FULL, sigma=0.2)
    assert got.sigma.shape == () and got.sigma == 0.2


def test_sigma_must_be_positive(tmp_path):
    with pytest.raises(DataError, match="sigma is no positive number"):
        read(tmp_path, FULL, sigma=0.0)


def test_integers_become_floats_and_complex_is_refused(tmp_path):
    assert read(tmp_path, np.triu(np.arange(1, 3 * N * N + 1).reshape(3, N, N))).c2.dtype == float
    with pytest.raises(DataError, match="complex128; expected real"):
        read(tmp_path, FULL + 0j)


def test_byte_order_of_the_file_does_not_matter(tmp_path):
    got = read(tmp_path, np.triu(FULL).astype(">f4"))
    assert jnp.asarray(got.c2).dtype == jnp.float32
