"""Threads, their events and runs, and the stores that keep them. Knows neither HTTP nor plugins."""
