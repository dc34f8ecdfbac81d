"""Where data comes in: the forward protocol, HTTP ingest, and the gateway that decides.

Read in the order of a byte's way: `listeners` (the doors of the forward protocol, and who watches them),
`tls`, `handshake` and `security` (who may come in), `forward` (one connection), `framing` and `json_events`
(bytes to messages), `receive_budget` (memory for what is incomplete), `payload` (is it well-formed, how many
events), `http` (the other door), `gateway` (policy, bus, ack, dead letters), `tier` (all of it as one
process). `client` is the other end of the forward protocol.
"""
