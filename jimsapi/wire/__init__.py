"""The base of protocol plugins: it begins runs for the requests of a protocol, and reads their answers.

A plugin decodes a request into a `Turn`. `begin_turn` begins the run in the thread that the client names. `speech`
converts the run's stream to items that every protocol has, and the plugin encodes these in its protocol.
"""
