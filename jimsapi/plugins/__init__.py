"""Plugins: the hooks that they implement, the options that they declare, and how a start builds a server from them."""
