"""Where data comes in: the forward protocol, HTTP ingest, and the gateway that decides.

Read in the order of a byte's way: `listeners` (the doors of the forward protocol, and who watches them),
`tls`, `handshake` and `security` (who may come in), `forward` (one connection), `framing` and `json_events`
(bytes to messages), `receive_budget` (memory for what is incomplete), `http`, `http_credentials` and
`http_formats` (the other door), `chunk` (what both hand on), `gateway` (the decision: policy, checks, bus)
with `unpacking`, `payload` (is it well-formed, how many events), `schema`, `off_loop` (large chunks keep none
waiting), `recent_chunks`, `held_chunks` and `dead_letter_queue` beside it, `tier` (all of it as one process).
`client` is the other end of the forward protocol.
"""
