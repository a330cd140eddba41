"""Holds the command, in `main`."""
