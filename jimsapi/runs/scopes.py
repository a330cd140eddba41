"""The scopes of the chat API: what a key, a token or another auth provider may allow its caller."""

CHAT = "chat"
"""Scope: answer a message in any protocol, and see one's own runs."""
THREADS = "threads"
"""Scope: list, read and delete threads and events, list and see the runs of other callers, and list and delete
contacts."""
SCOPES = (CHAT, THREADS)
"""The scopes that routes of the chat API need. Plugins may have more."""
