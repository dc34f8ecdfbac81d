"""The messages on the bus: chunks, results, alarms and flushes, in Avro single-object encoding.

Open `chunks.py` first. The schemas are in `../schemas`.
"""
