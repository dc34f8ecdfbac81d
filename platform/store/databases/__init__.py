"""Checkpoints and dead letters, in SQLite files of the home or in PostgreSQL.

Open `interfaces.py` first: it says what both promise. `database.py` is the one layer over both databases,
`sqlite_file.py` how threads and processes share a file.
"""
