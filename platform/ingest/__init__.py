"""Ingestion: the forward protocol, HTTP, and the gateway that decides about each chunk.

Open `gateway.py` first: it decides. `forward/` and `http/` are the two ways in.
"""
