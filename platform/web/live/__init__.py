"""The live feed: rows over a WebSocket as they are written.

Open `feed.py` first; `frames.py` has the bytes.
"""
