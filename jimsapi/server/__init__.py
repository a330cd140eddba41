"""Serving an ASGI app with uvicorn. Knows neither chats nor plugins."""
