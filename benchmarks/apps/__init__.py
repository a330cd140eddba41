"""The servers that are measured: apps that give the same answers."""
