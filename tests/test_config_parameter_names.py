"""Names, groups, order and aliases."""

import pytest

from twotime.config import parameter_names as names

CANONICAL = (
    "D0_ref alpha_ref D_offset_ref D0_sample alpha_sample D_offset_sample v0 beta v_offset "
    "f0 f1 f2 f3 phi0"
).split()


def test_canonical_order():
    assert list(names.ALL_PARAM_NAMES) == CANONICAL
    assert names.ALL_PARAM_NAMES_WITH_SCALING == (*CANONICAL, "contrast", "offset")
    assert names.PARAMETER_NAMES["static"] == ("D0", "alpha", "D_offset")
    assert names.PARAMETER_NAMES["laminar_flow"] == (
        *("D0", "alpha", "D_offset"),
        *("gamma_dot_t0", "beta", "gamma_dot_t_offset", "phi0"),
    )


@pytest.mark.parametrize("mode", names.ANALYSIS_MODES)
def test_index_is_position(mode):
    for position, name in enumerate(names.PARAMETER_NAMES[mode]):
        assert names.get_param_index(name, mode) == position
    members = [name for group in names.PARAMETER_GROUPS[mode].values() for name in group]
    assert members == [*names.PARAMETER_NAMES[mode], "contrast", "offset"]


def test_aliases_mean_parameters():
    known = {name for mode in names.ANALYSIS_MODES for name in names.PARAMETER_NAMES[mode]}
    assert set(names.PARAMETER_ALIASES.values()) <= known
    assert not set(names.PARAMETER_ALIASES) & known


@pytest.mark.parametrize("error", [KeyError, ValueError])
def test_unknown_name_proposes_the_nearest(error):
    with pytest.raises(error, match="did you mean 'D0_ref'"):
        names.get_param_index("D0_rf")
    with pytest.raises(error, match="did you mean 'laminar_flow'"):
        names.get_param_index("D0", "laminar")
