"""HTTP and metrics bodies as events: JSON, JSON lines, msgpack, forms; and decompression.

Open `formats.py` first.
"""
