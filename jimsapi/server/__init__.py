"""Serves an ASGI app with uvicorn. It does not depend on the chat API or on plugins."""
