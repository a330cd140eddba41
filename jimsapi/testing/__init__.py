"""What plugin authors test their plugins with. It needs pytest and hypothesis, which serving does not."""

import pytest

# So that a failing assertion of the contract shows the values that it compared, as one in a test module does.
pytest.register_assert_rewrite("jimsapi.testing.store", "jimsapi.testing.store_machine")

from jimsapi.testing.store import ThreadStoreContract  # noqa: E402  # after the registration, or it has no effect

__all__ = ["ThreadStoreContract"]
