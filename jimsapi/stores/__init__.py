"""The built-in stores: in memory, and in an SQLite database."""
