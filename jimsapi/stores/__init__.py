"""Where threads are kept: in memory, or in an SQLite database."""
