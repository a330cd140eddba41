"""The flow of a run, from an inbound message to a stored outcome. It does not depend on HTTP."""
