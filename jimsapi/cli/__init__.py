"""The command line: serving, checking and explaining a configuration, replays, scaffolds, and chats in the terminal."""

import gc

# A start takes a tenth less time if the garbage collector does not traverse what imports make, neither meanwhile nor
# right after them.
_was_enabled = gc.isenabled()
gc.disable()
try:
    from jimsapi.cli.main import main
finally:
    if _was_enabled:
        if gc.get_freeze_count() == 0:
            gc.freeze()
            gc.unfreeze()  # what was frozen is now in the oldest generation, as if it had been traversed
        gc.enable()

__all__ = ["main"]
