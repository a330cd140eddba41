"""The command line: serving, checking and explaining a configuration, replays, scaffolds, and chats in the terminal."""

import gc

# A start takes a tenth less time if the garbage collector does not traverse the objects that imports make meanwhile.
_was_enabled = gc.isenabled()
gc.disable()
try:
    from jimsapi.cli.main import main
finally:
    if _was_enabled:
        gc.enable()

__all__ = ["main"]
