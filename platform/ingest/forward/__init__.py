"""The fluentd forward protocol: framing, handshake, acks, one connection, listeners and a client.

Open `framing.py` first, then `connection.py`.
"""
