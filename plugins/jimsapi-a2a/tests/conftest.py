"""What the tests of the plugin share: helpers beside them, and servers with several callers."""

import sys
from pathlib import Path

# Tests are collected by path, so that a helper beside them has to be put within reach.
sys.path.insert(0, str(Path(__file__).parent))

from tests.plugins.talking import people

__all__ = ["people"]
