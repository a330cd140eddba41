"""What protocol plugins stand on: from a request to the turn of a conversation, and from a run to what is said of it.

A plugin's decoder makes a `Turn`, and `begin_turn` begins its run in the thread that the client means. `speech` makes
of the run's stream what every protocol can say, and the plugin's encoder puts it into the protocol's own words.
"""
