"""Where the data stays: data streams, data arrays, checkpoints, dead letters, and the catalog of documents.

Open `store.py` first: it finds and makes streams and arrays below one directory. `segmented_file.py` is the
one primitive for bytes that only grow (its format, and what a crash can do to it, are described there;
`segmented_writer.py` appends to it, `mapping.py` shows it as one contiguous range of memory), `rows.py` reads
rows of a fixed size from it, and `data_stream.py` and `data_array.py` are made of these. `checkpoint.py`,
`dead_letters.py` and `catalog.py` are databases of their own; `policy.py` is what the catalog holds of an
ingestion policy.
"""
