"""The core knows the options of first-party plugins that must not be ignored if the plugin is missing."""

from jimsapi.plugins import specs
from jimsapi.plugins.compose import declared_options
from jimsapi.plugins.core import FIRST_PARTY_AUTH, FIRST_PARTY_REPORTING
from jimsapi.plugins.manager import PluginManager


def declared_by(*distributions: str) -> dict[str, str]:
    """The options of plugins that are installed here, and whose they are."""
    return {
        spec.key: item.distribution
        for item in declared_options(PluginManager({}))
        if item.distribution in distributions
        for spec in specs(item.options)
    }


def test_the_core_s_table_holds_every_option_of_the_first_party_auth_plugins() -> None:
    assert declared_by("jimsapi-authentik", "jimsapi-oidc") == FIRST_PARTY_AUTH


def test_the_core_s_table_holds_every_option_of_error_reporting() -> None:
    assert declared_by("jimsapi-sentry") == FIRST_PARTY_REPORTING
