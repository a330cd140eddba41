"""Contracts: test classes for plugin authors. An author derives a class from a contract to test a plugin with it.

All contracts need pytest, and that of stores also needs hypothesis. A server needs neither.
"""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from jimsapi.testing.auth import AuthProviderContract
    from jimsapi.testing.contract import DoesNotApply
    from jimsapi.testing.resolver import ThreadResolverContract
    from jimsapi.testing.sink import EventSinkContract
    from jimsapi.testing.store import ThreadStoreContract

__all__ = [
    "AuthProviderContract",
    "DoesNotApply",
    "EventSinkContract",
    "ThreadResolverContract",
    "ThreadStoreContract",
]

_MODULES = {
    "AuthProviderContract": "auth",
    "DoesNotApply": "contract",
    "EventSinkContract": "sink",
    "ThreadResolverContract": "resolver",
    "ThreadStoreContract": "store",
}

# So a failing assertion of a contract shows the compared values, as in a test module.
pytest.register_assert_rewrite(*(f"jimsapi.testing.{name}" for name in (*_MODULES.values(), "store_machine")))


def __getattr__(name: str) -> Any:
    """Import a contract when it is used, so that authors of auth plugins do not need hypothesis."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"jimsapi.testing.{_MODULES[name]}"), name)
