"""The stores that jimsapi has: in memory, and in an SQLite database."""
