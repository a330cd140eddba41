"""Which plugins are installed, and which of them a server loads. Nothing here imports a plugin."""

import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from email import message_from_string
from typing import Any

import msgspec

from jimsapi.plugins.config_option import config_of
from jimsapi.plugins.errors import PluginError, StartError
from jimsapi.plugins.options import Options, Owned, Settings, option, specs
from jimsapi.plugins.versions import allows, canonical, required_versions

GROUP = "jimsapi"
OWN_DISTRIBUTION = "jimsapi"
BUILT_IN = "built in"
NONE = "none"
"""The value of `--plugins` that loads no installed plugin."""


class PluginEntry(msgspec.Struct, frozen=True):
    """A plugin as the metadata of its distribution describes it. The plugin itself is not imported.

    `requires` are the versions of jimsapi that the distribution requires, such as `>=0.2,<1`; empty if it names none.
    """

    name: str
    value: str
    distribution: str
    version: str
    requires: str = ""

    def __str__(self) -> str:
        return f"plugin {self.name} ({self.value}, distribution {self.distribution} {self.version})"

    @property
    def is_third_party(self) -> bool:
        """Whether the plugin is not part of jimsapi's own distribution."""
        return self.value != BUILT_IN

    @property
    def remedy(self) -> str:
        """The end of an error message: what the operator can do about the plugin."""
        return f"fix it, start with --without-plugin {self.name}, or: pip uninstall {self.distribution}"

    def is_called(self, name: str) -> bool:
        """Return whether an operator means this plugin by `name`, which is its own or its distribution's name."""
        return name == self.name or canonical(name) == canonical(self.distribution)


def discover() -> list[PluginEntry]:
    """Return the installed plugins in the order in which their hooks are called: by distribution, then by name.

    Does not import any of them.
    """
    entries = []
    for point in importlib.metadata.entry_points(group=GROUP):
        name, version, requirements = _described(point.dist)
        requires = required_versions(requirements, OWN_DISTRIBUTION)
        entries.append(PluginEntry(point.name, point.value, name, version, requires))
    return sorted(set(entries), key=lambda entry: (entry.distribution.lower(), entry.name))


def _described(distribution: importlib.metadata.Distribution | None) -> tuple[str, str, Iterable[str]]:
    """Return the name, the version and the requirements of a distribution. Reads its file once."""
    if distribution is None:
        return "unknown", "unknown", ()
    text = distribution.read_text("METADATA")
    if text:
        headers = message_from_string(text.partition("\n\n")[0])  # the README after them takes longer to parse
        return headers["Name"] or "unknown", headers["Version"] or "unknown", headers.get_all("Requires-Dist", ())
    metadata = distribution.metadata  # of an egg, or of what an importer of its own describes
    return metadata["Name"] or "unknown", metadata["Version"] or "unknown", distribution.requires or ()


class PluginOptions(Options):
    """The selection of installed plugins. jimsapi reads these options before it imports a plugin."""

    plugins: str | None = option(
        help="The only installed plugins to load, by name or distribution, separated by commas, or the word none."
    )
    without_plugin: tuple[str, ...] = option(
        help="An installed plugin that is not loaded, by name or distribution; several are separated by commas."
    )


def plugin_options(given: Mapping[str, Any], environ: Mapping[str, str]) -> PluginOptions:
    """Resolve the options that select plugins. `given` has the values of flags or keywords, also those of others.

    Raises `OptionError` for an invalid value.
    """
    own = {spec.key: given.get(spec.key) for spec in specs(PluginOptions)}
    config = config_of(given, environ).only(own)
    return Settings([Owned(PluginOptions, OWN_DISTRIBUTION)], own, environ, config=config).get(PluginOptions)


def select(entries: Sequence[PluginEntry], options: PluginOptions) -> list[PluginEntry]:
    """Return those of the installed plugins `entries` that the options select, in the same order.

    Raises `StartError` if an option names a plugin that is not installed, or if `plugins` names none.
    """
    names = [] if options.plugins in (None, NONE) else _names([options.plugins or ""])
    if options.plugins is not None and not names and options.plugins != NONE:
        raise StartError(f"--plugins: {options.plugins!r} names no plugin; give names, or {NONE}")
    _refuse_missing("--plugins", names, entries)
    _refuse_missing("--without-plugin", _names(options.without_plugin), entries)
    return [entry for entry in entries if is_selected(entry, options)]


def is_selected(entry: PluginEntry, options: PluginOptions) -> bool:
    """Return whether the options select an installed plugin."""
    if options.plugins is not None and not any(entry.is_called(name) for name in _names([options.plugins])):
        return False
    return not any(entry.is_called(name) for name in _names(options.without_plugin))


def reject_other_version(entry: PluginEntry, version: str) -> None:
    """Raise `PluginError` if the plugin's distribution requires another version of jimsapi than `version`."""
    if not allows(entry.requires, version):
        raise PluginError(
            f"{entry} requires jimsapi {entry.requires}, and this is jimsapi {version}; install a version of "
            f"{entry.distribution} for it, or start with --without-plugin {entry.name}"
        )


def _names(texts: Iterable[str]) -> list[str]:
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def _refuse_missing(flag: str, names: Iterable[str], entries: Sequence[PluginEntry]) -> None:
    for name in names:
        if not any(entry.is_called(name) for entry in entries):
            installed = ", ".join(entry.name for entry in entries) or "none"
            raise StartError(f"{flag} names {name}, which is not installed (installed plugins: {installed})")


def reject_duplicate_name(entry: PluginEntry, selected: Iterable[PluginEntry]) -> None:
    """Raise `PluginError` if another selected plugin has the same name. pluggy would ignore one without an error."""
    for other in selected:
        if other.name == entry.name and other is not entry:
            first, second = sorted((entry, other), key=lambda one: one.distribution)
            raise PluginError(
                f"two plugins are named {entry.name}: one of distribution {first.distribution} {first.version}, one of "
                f"{second.distribution} {second.version}; pip uninstall one of the two, or start with --without-plugin "
                "and its distribution"
            )
