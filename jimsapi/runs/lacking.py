"""Stores of plugins for an earlier version of jimsapi, which lack methods of `ThreadStore`."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from jimsapi.threads.errors import StoreLacks
from jimsapi.threads.store import ThreadStore


def method_of(store: ThreadStore, name: str, *, needs: int = 0) -> Callable[..., Awaitable[Any]]:
    """Return a method of a store that takes `needs` arguments (0: any number). Raises `StoreLacks` if it has none."""
    method: Callable[..., Awaitable[Any]] | None = getattr(store, name, None)
    if method is None:
        raise StoreLacks(_kind(store), f"the method '{name}'")
    if needs and not takes(method, needs):
        raise StoreLacks(_kind(store), f"all arguments of the method '{name}'")
    return method


def takes(method: Callable[..., Any], count: int) -> bool:
    """Return whether a method can be called with `count` arguments."""
    try:
        inspect.signature(method).bind(*[None] * count)
    except TypeError:
        return False
    return True


def _kind(store: ThreadStore) -> str:
    return type(store).__name__
