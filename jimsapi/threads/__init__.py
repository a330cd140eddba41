"""What a conversation is: threads, their events and runs, and what a store of them has to do."""
