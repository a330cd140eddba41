"""The core knows every auth option of the first-party plugins, so that one without its plugin stops the start."""

from jimsapi.plugins.compose import declared_options
from jimsapi.plugins.core import FIRST_PARTY_AUTH
from jimsapi.plugins.manager import PluginManager
from jimsapi.plugins.options import specs


def test_the_core_s_table_holds_every_option_of_the_first_party_auth_plugins() -> None:
    declared = {
        spec.key: item.distribution
        for item in declared_options(PluginManager({}))
        if item.distribution in ("jimsapi-authentik", "jimsapi-oidc")
        for spec in specs(item.options)
    }
    assert declared == FIRST_PARTY_AUTH
