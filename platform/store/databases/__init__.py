"""The SQLite databases of a home: checkpoints and dead letters.

Open `sqlite_file.py` first: threads and processes share a database through it.
"""
