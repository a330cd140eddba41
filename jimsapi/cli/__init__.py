"""The command line: serving, checking and explaining a configuration, replays, scaffolds, and chats in the terminal."""

import gc

# The objects that imports make live until the end. A start takes a tenth less time if the garbage collector does not
# traverse them meanwhile, and a command ends sooner if it does not traverse them later, as it would when Python exits.
_was_enabled = gc.isenabled()
gc.disable()
try:
    from jimsapi.cli.main import main
finally:
    if _was_enabled:
        gc.freeze()
        gc.enable()

__all__ = ["main"]
