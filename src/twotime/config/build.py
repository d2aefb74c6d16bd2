"""From a configuration to the model it asks for: the one place where a word becomes a class."""

from twotime.config.manager import ConfigManager
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.laminar_flow import LaminarFlow
from twotime.models.static import StaticDiffusion
from twotime.models.two_component import TwoComponent


def build_model(config: ConfigManager) -> AbstractTwoTimeModel:
    """The model that a configuration asks for.

    Args:
        config: A validated configuration.

    Returns:
        The model of its `analysis_mode`, with its integration rule, gap and shear convention.

    Raises:
        ValueError: If laminar flow is asked for without the gap of the shear cell.
    """
    if config.analysis_mode == "static":
        return StaticDiffusion(integration=config.integration)
    if config.analysis_mode == "two_component":
        return TwoComponent(integration=config.integration)
    if config.gap is None:
        raise ValueError(
            "analyzer_parameters.geometry.stator_rotor_gap is missing; laminar_flow needs the "
            "gap of the shear cell [Å]; add it, for example stator_rotor_gap: 2.0e6."
        )
    return LaminarFlow(
        gap=config.gap, shear_convention=config.shear_convention, integration=config.integration
    )
