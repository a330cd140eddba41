"""The configuration file: options in TOML, such as `jimsapi.toml`."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from jimsapi.plugins.errors import OptionError
from jimsapi.plugins.secrets import read_plain_file


class ConfigFile(msgspec.Struct, frozen=True):
    """The values of a configuration file, by the keys of their options.

    A key is the name of an option, with dashes or underscores. A table adds its name to the front: `url` in the table
    `authentik` is the option `authentik_url`. The key with `_file` at its end names a file with the value.
    """

    path: Path
    values: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "ConfigFile":
        """Read a file. Raises `OptionError` if it cannot be read, is not TOML, or sets an option twice."""
        import tomllib  # takes 2 ms, which a start without a file need not pay

        try:
            tables = tomllib.loads(read_plain_file(path)[0].decode("utf-8-sig"))
        except OSError as error:
            raise OptionError(f"cannot read the configuration file {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise OptionError(f"the configuration file {path} is not UTF-8 text") from None
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise OptionError(f"the configuration file {path} is not TOML: {error}") from None
        except ValueError as error:  # it is not a file, or too large
            raise OptionError(f"cannot read the configuration file {path}: {error}") from None
        values: dict[str, Any] = {}
        for key, value in _flatten(tables, ""):
            if key in values:
                raise OptionError(f"{path}: the option {key} is set twice; remove one of the two")
            values[key] = value
        return cls(path, values)

    def source(self, key: str) -> str:
        """Return the text that names a value of this file in an error."""
        return f"{self.path}: {key}"

    def only(self, keys: Collection[str]) -> "ConfigFile":
        """Return the same file with some of its values."""
        return ConfigFile(self.path, {key: value for key, value in self.values.items() if key in keys})


NO_CONFIG = ConfigFile(Path(), {})


def _flatten(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        key = prefix + name.replace("-", "_")
        if isinstance(value, dict):
            yield from _flatten(value, f"{key}_")
        else:
            yield key, value
