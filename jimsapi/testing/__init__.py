"""Contracts: test classes for plugin authors. An author derives a class from a contract to test a plugin with it.
`replay` tests an app with a stored conversation.

All contracts need pytest, and those of stores and of their wrappers also need hypothesis. A server needs neither.
"""

from typing import TYPE_CHECKING

import pytest

from jimsapi.lazy_attributes import lazy_attributes

if TYPE_CHECKING:
    from jimsapi.testing.apps import AppAdapterContract, AppLoaderContract
    from jimsapi.testing.asgi_wrapper import AsgiWrapperContract
    from jimsapi.testing.auth import AuthProviderContract
    from jimsapi.testing.commands import CommandsContract
    from jimsapi.testing.contract import DoesNotApply
    from jimsapi.testing.conversation import Conversation, ReplayedTurn, assert_unchanged, replay
    from jimsapi.testing.file_store import FileStoreContract
    from jimsapi.testing.metrics import MetricsContract
    from jimsapi.testing.observer import ObserverContract
    from jimsapi.testing.pipeline_wrapper import PipelineWrapperContract
    from jimsapi.testing.replica_link import ReplicaLinkContract
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
    "Conversation",
    "DoesNotApply",
    "EventSinkContract",
    "FileStoreContract",
    "MetricsContract",
    "ObserverContract",
    "PipelineWrapperContract",
    "ReplayedTurn",
    "ReplicaLinkContract",
    "StoreWrapperContract",
    "ThreadResolverContract",
    "ThreadStoreContract",
    "assert_unchanged",
    "replay",
]

_MODULES = {
    "jimsapi.testing.apps": ("AppAdapterContract", "AppLoaderContract"),
    "jimsapi.testing.asgi_wrapper": ("AsgiWrapperContract",),
    "jimsapi.testing.auth": ("AuthProviderContract",),
    "jimsapi.testing.commands": ("CommandsContract",),
    "jimsapi.testing.contract": ("DoesNotApply",),
    "jimsapi.testing.conversation": ("Conversation", "ReplayedTurn", "assert_unchanged", "replay"),
    "jimsapi.testing.file_store": ("FileStoreContract",),
    "jimsapi.testing.metrics": ("MetricsContract",),
    "jimsapi.testing.observer": ("ObserverContract",),
    "jimsapi.testing.pipeline_wrapper": ("PipelineWrapperContract",),
    "jimsapi.testing.replica_link": ("ReplicaLinkContract",),
    "jimsapi.testing.resolver": ("ThreadResolverContract",),
    "jimsapi.testing.sink": ("EventSinkContract",),
    "jimsapi.testing.store": ("ThreadStoreContract",),
    "jimsapi.testing.store_wrapper": ("StoreWrapperContract",),
}

# So a failing assertion of a contract shows the compared values, as in a test module.
pytest.register_assert_rewrite(*_MODULES, "jimsapi.testing.store_machine")

if not TYPE_CHECKING:  # a type checker would find every name
    # A contract is imported when it is used, so that authors of auth plugins do not need hypothesis.
    __getattr__, __dir__ = lazy_attributes(__name__, _MODULES)
