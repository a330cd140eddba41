"""The option `--config`. It is read before all others, since the file may select plugins, which declare options."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jimsapi.plugins.config_file import NO_CONFIG, ConfigFile
from jimsapi.plugins.errors import OptionError
from jimsapi.plugins.options import Options, Owned, Settings, option, specs

OF_THE_COMMAND = frozenset(
    {
        *(
            "host",
            "port",
            "uds",
            "uds_mode",
            "root_path",
            "root_path_kept",
            "forwarded_allow_ips",
            "ssl_certfile",
            "ssl_keyfile",
            "reload",
            "drain_delay",
            "workers",
        ),
        *("log_format", "verbose", "log_client", "log_caller", "log_contact", "log_hash_key"),
    }
)
"""The keys of options that only the command has. An app that another server serves may share the command's file."""


class ConfigOptions(Options):
    """The file with values of other options."""

    config: Path | None = option(
        help="A TOML file with options. The command reads jimsapi.toml if that is in the current folder."
    )


def config_of(given: Mapping[str, Any], environ: Mapping[str, str]) -> ConfigFile:
    """Read the configuration file that flags, keywords or variables name; an empty one if they name none.

    `given` has values by key, also those of other options. Raises `OptionError`.
    """
    own = {spec.key: given.get(spec.key) for spec in specs(ConfigOptions)}
    path = Settings([Owned(ConfigOptions, "jimsapi")], own, environ).get(ConfigOptions).config
    if path is None:
        return NO_CONFIG
    config = ConfigFile.read(path)
    for key in ("config", "config_file"):
        if key in config.values:
            raise OptionError(f"{config.source(key)} has no effect in the file itself; give --config or JIMS_CONFIG")
    return config
