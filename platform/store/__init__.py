"""Data streams, data arrays, checkpoints, dead letters, and the catalog of documents.

Open `files/segmented_file.py` first, then `files/store.py`.
"""
