"""Contracts: test classes for plugin authors. An author derives a class from a contract to test a plugin with it.

All contracts need pytest, and those of stores and of their wrappers also need hypothesis. A server needs neither.
"""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from jimsapi.testing.apps import AppAdapterContract, AppLoaderContract
    from jimsapi.testing.asgi_wrapper import AsgiWrapperContract
    from jimsapi.testing.auth import AuthProviderContract
    from jimsapi.testing.commands import CommandsContract
    from jimsapi.testing.contract import DoesNotApply
    from jimsapi.testing.deprecations import deprecated_hooks
    from jimsapi.testing.metrics import MetricsContract
    from jimsapi.testing.observer import ObserverContract
    from jimsapi.testing.pipeline_wrapper import PipelineWrapperContract
    from jimsapi.testing.resolver import ThreadResolverContract
    from jimsapi.testing.sink import EventSinkContract
    from jimsapi.testing.store import ThreadStoreContract
    from jimsapi.testing.store_wrapper import StoreWrapperContract

__all__ = [
    "AppAdapterContract",
    "AppLoaderContract",
    "AsgiWrapperContract",
    "AuthProviderContract",
    "CommandsContract",
    "DoesNotApply",
    "EventSinkContract",
    "MetricsContract",
    "ObserverContract",
    "PipelineWrapperContract",
    "StoreWrapperContract",
    "ThreadResolverContract",
    "ThreadStoreContract",
    "deprecated_hooks",
]

_MODULES = {
    "AppAdapterContract": "apps",
    "AppLoaderContract": "apps",
    "AsgiWrapperContract": "asgi_wrapper",
    "AuthProviderContract": "auth",
    "CommandsContract": "commands",
    "DoesNotApply": "contract",
    "EventSinkContract": "sink",
    "MetricsContract": "metrics",
    "ObserverContract": "observer",
    "PipelineWrapperContract": "pipeline_wrapper",
    "StoreWrapperContract": "store_wrapper",
    "ThreadResolverContract": "resolver",
    "ThreadStoreContract": "store",
    "deprecated_hooks": "deprecations",
}

# So a failing assertion of a contract shows the compared values, as in a test module.
pytest.register_assert_rewrite(*(f"jimsapi.testing.{name}" for name in (*_MODULES.values(), "store_machine")))


def __getattr__(name: str) -> Any:
    """Import a contract when it is used, so that authors of auth plugins do not need hypothesis."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"jimsapi.testing.{_MODULES[name]}"), name)
