"""The records of a data stream: the arrival of each chunk, and the time of each event."""

import numpy as np

CHUNK_ID_BYTES = 32

ARRIVAL = np.dtype(
    [
        ("offset", "<u8"),  # of the chunk's first byte in the stream
        ("size", "<u8"),  # bytes it appended, which may be none
        ("arrived_ns", "<i8"),  # ns since the epoch, UTC
        ("events_total", "<u8"),  # events of the stream, this chunk included
        ("crc32c", "<u4"),  # of the bytes it appended
        ("chunk_id_size", "<u4"),  # bytes of the chunk's ID, 0 if it had none
        ("chunk_id", f"V{CHUNK_ID_BYTES}"),  # its first 32 bytes, padded with zeros
    ]
)

PART_OF_CHUNK = b"windvane:part"
"""The id of an arrival that has some events of a chunk; the one with the last of them has the chunk's id."""

EVENT = np.dtype([("end", "<i8"), ("time_ns", "<i8")])
"""One event: the offset past its last byte in the stream, and its time in ns since the epoch, UTC."""
