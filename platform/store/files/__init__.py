"""Segmented files, and the data streams and data arrays made of them.

Open `segmented_file.py` first: it has the format, and what a crash can do to it. `data_stream.py` and
`data_array.py` build on it; `store.py` finds and creates both.
"""
