"""Threads, their events and runs, the rules by which they change, and the protocol of their stores."""
