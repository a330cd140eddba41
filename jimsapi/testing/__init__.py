"""What plugin authors test their plugins with: contracts, each of which a plugin keeps by deriving one class.

They need pytest; that of stores also needs hypothesis. Serving needs neither.
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

# So that a failing assertion of a contract shows the values that it compared, as one in a test module does.
pytest.register_assert_rewrite(*(f"jimsapi.testing.{name}" for name in (*_MODULES.values(), "store_machine")))


def __getattr__(name: str) -> Any:
    """Import a contract when it is asked for: the author of an auth plugin needs no hypothesis."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"jimsapi.testing.{_MODULES[name]}"), name)
