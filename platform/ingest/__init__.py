"""Where data comes in: the forward protocol, HTTP ingest, and the gateway that decides.

Read in the order of a byte's way: `framing` (bytes to messages), `payload` (is it well-formed, how many
events), `forward` (the socket), `http` (the other door), `gateway` (policy, bus, ack, dead letters),
`tier` (all of it as one process). `client` is the other end of the forward protocol.
"""
