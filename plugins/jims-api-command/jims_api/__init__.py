"""The package of the command, which is in `main`."""
