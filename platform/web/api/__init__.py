"""The resources of the HTTP API, one module each.

Open `streams.py` first: a short example.
"""
