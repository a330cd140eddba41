"""What plugin authors test their plugins with. It needs pytest and hypothesis, which serving does not."""

from jimsapi.testing.store import ThreadStoreContract

__all__ = ["ThreadStoreContract"]
