"""The HTTP API over the run service: routes, admission, errors, and the app that carries them."""
