"""Which angles a filter keeps."""

from hypothesis import given
from hypothesis import strategies as st

from twotime.data.selection import PhiFilter


@given(
    phi=st.integers(-720, 720),
    low=st.integers(-179, 180),
    width=st.integers(0, 359),
    turns=st.integers(-2, 2),
)
def test_ranges_live_on_the_circle(phi, low, width, turns):
    inside = (phi - low) % 360 <= width
    wrapped = 180 - (180 - (low + width)) % 360
    keep = PhiFilter(ranges=((float(low), float(wrapped)),))
    assert keep.keeps(phi + 360.0 * turns) == inside


def test_ranges_by_hand():
    assert PhiFilter().keeps(12.0)
    assert PhiFilter(ranges=((-180.0, 180.0),)).keeps(180.0)
    assert PhiFilter(ranges=((30.0, 30.0),)).keeps(30.0)
    assert not PhiFilter(ranges=((30.0, 30.0),)).keeps(30.1)
    assert PhiFilter(ranges=((80.0, 100.0), (0.0, 10.0))).keeps(5.0)


@given(phi=st.integers(-180, 180), named=st.integers(-180, 180), tolerance=st.integers(0, 20))
def test_named_angles_are_met_within_the_tolerance(phi, named, tolerance):
    phi = float(phi)
    near = min((phi - named) % 360, (named - phi) % 360) <= tolerance
    angle = (float(named),)
    assert PhiFilter(include=angle, tolerance=float(tolerance)).keeps(phi) == near
    assert PhiFilter(exclude=angle, tolerance=float(tolerance)).keeps(phi) != near


def test_excluded_wins_and_included_adds_to_ranges():
    keep = PhiFilter(ranges=((0.0, 90.0),), include=(120.0,), exclude=(45.0,), tolerance=2.0)
    angles = [float(phi) for phi in range(0, 180, 15)]
    assert [phi for phi in angles if keep.keeps(phi)] == [0, 15, 30, 60, 75, 90, 120]
