"""Shows which deprecated hooks a plugin uses."""

from jimsapi.plugins.discovery import PluginOptions
from jimsapi.plugins.manager import PluginManager


def deprecated_hooks(distribution: str) -> list[str]:
    """Return a line for each deprecated hook that the plugins of an installed distribution implement:

        def test_it_uses_no_deprecated_hook():
            assert deprecated_hooks("jimsapi-motto") == []

    The line has the file and line of the function, the version that removes the hook, and what to use instead. A hook
    whose replacement the plugin implements too is not listed: versions that have the replacement do not call it.

    Raises `StartError` if the distribution has no installed plugin, or one that cannot be loaded.
    """
    return PluginManager({}, options=PluginOptions(plugins=distribution)).deprecated_uses
