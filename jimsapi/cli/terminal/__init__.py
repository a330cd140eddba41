"""The conversation of `jimsapi chat`, in a terminal or through pipes.

`rich_conversation.py`, `rich_screen.py` and `editor.py` need the extra `jimsapi[chat]`, and only they import it.
"""
