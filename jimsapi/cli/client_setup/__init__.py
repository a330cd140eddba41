"""What `jimsapi connect` prints: the configurations of well-known clients for a server, which is asked itself.

`address` reads the URL, `probe` sends requests, `access` and `protocols` find out what the server serves and to whom,
`survey` combines them, `snippets` has the texts for clients, and `report` prints all of it.
"""
