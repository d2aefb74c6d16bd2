"""From a configuration to the model it asks for: the one place where a word becomes a class."""

from twotime.config.manager import ConfigManager
from twotime.models import LAWS
from twotime.models.base import AbstractTwoTimeModel


def build_model(config: ConfigManager) -> AbstractTwoTimeModel:
    """The model that a configuration asks for.

    Args:
        config: A validated configuration.

    Returns:
        The model of its `analysis_mode`, with the settings that the configuration gives.

    Raises:
        ValueError: If a setting that the model needs is missing.
    """
    law = LAWS[config.analysis_mode]
    arguments = {}
    for setting in law.settings:
        *sections, key = setting.path
        value = config.section(".".join(sections)).get(key)
        if value is None and setting.needed:
            raise ValueError(
                f"{'.'.join(setting.path)} is missing; {setting.needed}; add it, for example "
                f"{key}: {setting.example}."
            )
        if value is not None:
            arguments[setting.argument] = value
    return law(**arguments)
