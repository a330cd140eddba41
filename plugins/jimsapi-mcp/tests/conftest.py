"""The clients of MCP."""

import sys
from pathlib import Path

from tests.plugins.talking import people

__all__ = ["people"]

# Tests are collected by path, so that a helper beside them has to be put within reach.
sys.path.insert(0, str(Path(__file__).parent))
