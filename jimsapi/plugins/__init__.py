"""Plugins: the hooks they implement, the options they declare, and the composition that is made of them at start."""
