"""The chat API over HTTP: its routes, who may call them, and the app that carries them."""
