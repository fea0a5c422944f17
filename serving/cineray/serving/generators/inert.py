"""Settings that cannot act beside others: a search or an ablation over one of them would compare nothing."""

from cineray.core.config import Config
from cineray.core.errors import ConfigError

__all__ = ["refuse_inert"]

SHOWN = 60
"""Characters of a value in an error: prompts are long."""


def refuse_inert(config: Config, *rules: tuple[str, bool, str]) -> None:
    """Refuse a setting that is idle and yet not at its default.

    Args:
        config: what is validated.
        rules: setting, whether it is idle, and beside what it is.

    Raises:
        ConfigError: names the setting and what makes it idle.
    """
    for name, _, beside in (rule for rule in rules if rule[1]):
        found, default = getattr(config, name), type(config).model_fields[name].default
        if found != default:
            raise ConfigError(
                f"found {name}={found!s:.{SHOWN}} beside {beside}, where it does nothing; leave it at "
                f"{default!s:.{SHOWN}}"
            )
