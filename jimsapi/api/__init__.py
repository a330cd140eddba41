"""The chat API over HTTP: its routes, its authentication, its metrics, and the app."""
