"""The servers that are measured: three apps that give the same answers."""
