"""Where the data stays: data streams, data arrays, checkpoints, dead letters, and the catalog of documents.

Open `store.py` first: it finds and makes streams and arrays below one directory. Below it,
`segmented_file.py` is the one primitive for bytes that only grow (its bytes, and what a crash can do to them,
are described there), `mapping.py` shows such a file as one contiguous range of memory, `rows.py` reads
fixed-size rows from it, `data_stream.py` and `data_array.py` are made of these. `checkpoint.py`,
`dead_letters.py` and `catalog.py` are databases of their own; `policy.py` is the ingestion policy as a
document.
"""
