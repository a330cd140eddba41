"""How a message is answered: the flow of a run, from an inbound message to a stored outcome. Knows no HTTP."""
