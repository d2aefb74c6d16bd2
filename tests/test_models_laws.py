"""Names of laws, and configurations that ask for any law and its parts."""

import sys
import types

import equinox as eqx
import jax.numpy as jnp
import pytest

import twotime as tt
from twotime.config.files import json_schema, parse_yaml, template
from twotime.errors import ConfigurationError
from twotime.models import laws


class Own(tt.AbstractTwoTimeModel):
    """A law of another package."""

    parameters = (
        tt.ParameterInfo("rate", 1.0, 0.1, 10.0, "Rate", "1/s", log_space=True),
        tt.ParameterInfo("lift", 0.5, 0.0, 1.0, "Lift", group="shape"),
    )
    knots: int = eqx.field(default=3, static=True)
    size: float = 1.0

    def channels(self, params, times, *, t, q, phi):
        none = jnp.zeros((0, times.shape[0]), times.dtype)
        return tt.Channels((params[0] * times)[None], none, none)

    def correlation(self, pair):
        return pair.decay[0]


class Bare(Own):
    parameters = ()
    names: tuple[str, ...] = ("rate",)


class Needy(Own):
    depth: int = eqx.field(static=True, kw_only=True)


@pytest.fixture(autouse=True)
def package(monkeypatch):
    module = types.ModuleType("ownlaws")
    module.Own, module.Bare, module.Needy, module.number = Own, Bare, Needy, 3
    for kind in (Own, Bare, Needy):
        monkeypatch.setattr(kind, "__module__", "ownlaws")
    monkeypatch.setitem(sys.modules, "ownlaws", module)


BASE = {
    "experimental_data": {"file_path": "x.h5"},
    "analyzer_parameters": {"scattering": {"wavevector_q": 0.01}, "dt": 0.1},
}


def read(**sections):
    return tt.ConfigManager.from_dict(BASE | sections)


def mistakes(**sections):
    with pytest.raises(ConfigurationError) as caught:
        read(**sections)
    return str(caught.value)


def test_words_paths_and_entry_points_name_laws(monkeypatch):
    assert laws.find_law("static") is tt.StaticDiffusion
    assert laws.find_law("TwoComponent") is tt.TwoComponent
    assert laws.find_law("Components") is tt.Components
    assert laws.find_law("ownlaws.Own") is laws.find_law("ownlaws:Own") is Own
    monkeypatch.setattr(laws, "own_words", lambda: {"mine": "ownlaws:Own"})
    assert laws.find_law("mine") is Own
    assert laws.law_name(tt.StaticDiffusion) == "StaticDiffusion"
    assert laws.law_name(Own) == "ownlaws.Own"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nosuch", "there is no law 'nosuch'; expected one of static, .*import path"),
        ("nopackage.laws.X", "there is no module 'nopackage'; install the package"),
        ("ownlaws.Missing", "the module 'ownlaws' has no 'Missing'"),
        ("ownlaws.number", "'ownlaws.number' is no law"),
    ],
)
def test_laws_that_are_not_there_are_sentences(name, sentence):
    with pytest.raises(ValueError, match=sentence):
        laws.find_law(name)


def test_a_configuration_names_a_law_its_arguments_and_its_parameters():
    config = read(
        model={"law": "ownlaws.Own", "knots": 8, "size": 2},
        parameters={"rate": {"value": 2.0, "min": 1, "max": 4}, "shape": {"lift": 0.25}},
    )
    law = tt.build_model(config)
    assert isinstance(law, Own) and (law.knots, law.size) == (8, 2.0)
    assert config.analysis_mode == "ownlaws.Own"
    assert config.space.registry.groups.keys() == {"law", "shape", "scaling"}
    assert config.space.values["rate"] == 2.0 and config.space.bounds["rate"] == (1.0, 4.0)
    assert config.space.values["lift"] == 0.25


def test_all_mistakes_of_a_law_are_told():
    told = mistakes(
        model={"law": "ownlaws.Own", "knots": 2.5, "knot": 3},
        parameters={"rat": 3, "shape": {"lift": {"vary": "no"}}, "rate": {"value": 50.0}},
    )
    for sentence in (
        "model.knots: got 2.5; expected a whole number.",
        "model.knot: there is no such key",
        "parameters.rat: the model has no parameter of this name; did you mean 'rate'?",
        "parameters.shape.lift.vary: got 'no'; expected true or false.",
    ):
        assert sentence in told
    assert "rate: value 50 lies outside its bounds" in mistakes(
        model={"law": "ownlaws.Own"}, parameters={"rate": {"value": 50.0}}
    )


def test_laws_that_cannot_be_made_are_sentences():
    assert "keep one" in mistakes(analysis_mode="static", model={"law": "ownlaws.Own"})
    assert "has names but no `parameters`" in mistakes(model={"law": "ownlaws.Bare"})
    assert "model.depth: missing; Needy needs it." in mistakes(model={"law": "ownlaws.Needy"})
    assert "model.law: got 3; expected text" in mistakes(model={"law": 3})
    assert tt.build_model(read(model={"law": "ownlaws.Needy", "depth": 2})).depth == 2


@pytest.mark.parametrize(
    ("sections", "law"),
    [
        (
            {"analysis_mode": "static", "model": {"transport": {"kind": "spline", "knots": 5}}},
            tt.StaticDiffusion(transport=tt.Spline(5)),
        ),
        (
            {"analysis_mode": "laminar_flow", "model": {"shear": {"kind": "constant"}},
             "analyzer_parameters": {**BASE["analyzer_parameters"],
                                     "geometry": {"stator_rotor_gap": 1e6}}},
            tt.LaminarFlow(gap=1e6, shear=tt.Constant()),
        ),
        (
            {"model": {"fractions": {"kind": "simplex", "knots": 2}, "stretched": True,
                       "q_reference": 0.01}},
            tt.TwoComponent(fractions=tt.Simplex(2), stretched=True, q_reference=0.01),
        ),
        (
            {"model": {"law": "Components", "members": [
                {"name": "gel", "transport": None},
                {"name": "a", "transport": {"kind": "exponential"}, "velocity": "constant"},
            ]}},
            tt.Components((
                tt.Component("gel", None),
                tt.Component("a", tt.Exponential(), velocity=tt.Constant()),
            )),
        ),
    ],
    ids=["static", "laminar", "two", "components"],
)  # fmt: skip
def test_parts_are_named_in_configurations_and_written_back(sections, law):
    config = read(**sections)
    built = tt.build_model(config)
    assert built == law and config.space.names == law.names
    analyzer = sections.get("analyzer_parameters", BASE["analyzer_parameters"])
    again = read(**laws.law_config(built) | {"analyzer_parameters": analyzer})
    assert tt.build_model(again) == law


def test_wrong_parts_are_told_where_they_stand():
    for model, sentence in (
        ({"transport": {"kind": "spline", "knots": 1}}, "model.transport.knots: got 1"),
        ({"transport": {"kind": "constant", "knots": 4}}, "model.transport: constant has no"),
        ({"shear": {"kind": "constant"}}, "model.shear: has no effect with analysis_mode: static"),
    ):
        assert sentence in mistakes(analysis_mode="static", model=model)
    got = mistakes(model={"law": "Components", "members": [{"name": "gel", "transprt": None}]})
    assert "model.members: a component has no 'transprt'; it takes name, transport" in got


def test_spaces_of_any_law_are_written_and_read():
    for law in (Own(knots=4), tt.StaticDiffusion(transport=tt.Spline(3))):
        space = tt.ParameterSpace.of(law)
        space = space.with_values({law.names[0]: 2.0}).with_vary({law.names[1]: False})
        config = space.to_config(law)
        again = tt.ParameterSpace.from_config(config)
        assert again.values == space.values and again.vary == space.vary
        assert again.bounds == space.bounds and again.own_priors == space.own_priors
    with pytest.raises(ValueError, match="without its law"):
        space.to_config()
    with pytest.raises(TypeError, match="no `parameters`"):
        tt.ParameterSpace.of(Bare())
    assert tt.ParameterSpace.of(tt.StaticDiffusion()).analysis_mode == "static"


def test_templates_and_schemas_know_any_law():
    for full in (False, True):
        text = template("ownlaws.Own", full=full)
        config = tt.ConfigManager.from_dict(parse_yaml(text.encode(), "template"))
        assert isinstance(tt.build_model(config), Own) and "knots: 3" in text or not full
    with pytest.raises(ConfigurationError, match="install the package"):
        template("nopackage.laws.X")
    with pytest.raises(ValueError, match="no analysis mode 'statik'; did you mean 'static'"):
        template("statik")
    definitions = json_schema("ownlaws.Own")["$defs"]
    assert definitions["ModelConfig"]["properties"]["knots"]["type"] == "integer"
    assert {"rate", "shape"} <= set(definitions["ParametersConfig"]["properties"])
    assert "shape" not in json_schema()["$defs"]["ParametersConfig"]["properties"]


def test_physics_checks_of_own_laws_are_heard(monkeypatch):
    check = tt.models.base.within("lift", "error", 0.0, 0.8, "is too much.")
    monkeypatch.setattr(Own, "checks", (check,))
    assert "lift = 0.9 is too much" in mistakes(
        model={"law": "ownlaws.Own"}, parameters={"lift": 0.9}
    )
