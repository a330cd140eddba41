"""The command line: serving, checking and explaining a configuration, replays, scaffolds, and chats in the terminal."""

import gc

# What imports make stays. A start takes a tenth less time if the garbage collector never looks at it.
_was_enabled = gc.isenabled()
gc.disable()
try:
    from jimsapi.cli.main import main

    gc.freeze()
finally:
    if _was_enabled:
        gc.enable()

__all__ = ["main"]
