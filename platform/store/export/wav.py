"""WAV (RIFF/WAVE): samples as PCM or IEEE float, the channels interleaved.

The chunk `LIST`/`INFO` has the reference (INAM), the time of the first sample (ICRD, RFC 3339) and the
array's description as JSON (ICMT). Times of single samples, and gaps, have no place in this format.
"""

import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import BinaryIO

import numpy as np

from ...errors import ExportFailed
from .rows_to_export import RowsToExport

_PCM, _IEEE_FLOAT = 1, 3
_FORMATS = {"u1": _PCM, "i2": _PCM, "i4": _PCM, "f4": _IEEE_FLOAT, "f8": _IEEE_FLOAT}
MAX_CHANNELS = 255
MAX_RIFF_BYTES = 2**32 - 1
_NS_PER_S = 1_000_000_000


def write_wav(export: RowsToExport, output: BinaryIO) -> Iterator[int]:
    """Write the file; yields the count of rows of each block. Raises ExportFailed for rows of other data."""
    output.write(_header(export))
    values, data_bytes = export.values, 0
    for part in export.slices():
        samples = values[part]
        data = np.ascontiguousarray(samples, samples.dtype.newbyteorder("<")).tobytes()
        data_bytes += len(data)
        output.write(data)
        yield part.stop - part.start
    output.write(bytes(data_bytes % 2))


def _header(export: RowsToExport) -> bytes:
    """Everything before the samples."""
    values, attrs = export.values, export.source.attrs
    reference = export.source.reference
    rate_hz = attrs.get("rate_hz")
    form = _FORMATS.get(values.dtype.newbyteorder("=").str[1:])
    channels = values.row_shape[0] if values.row_shape else 1
    if attrs.get("kind", "samples") != "samples" or not isinstance(rate_hz, int | float) or rate_hz < 1:
        raise ExportFailed(
            f"{reference} does not hold samples with a rate of at least 1 Hz, as WAV requires; export it as "
            ".parquet or .npy"
        )
    if form is None or len(values.row_shape) > 1 or channels > MAX_CHANNELS:
        raise ExportFailed(
            f"{reference} has rows of {values.dtype} {values.row_shape}; WAV holds u1, i2, i4, f4 and f8 of "
            f"up to {MAX_CHANNELS} channels; export it as .parquet or .npy"
        )
    frame_bytes, rate = values.row_bytes, round(rate_hz)
    frames, is_float = len(export.rows), form == _IEEE_FLOAT
    fields = (form, channels, rate, rate * frame_bytes, frame_bytes, values.dtype.itemsize * 8)
    data_bytes, info = frames * frame_bytes, _info(export)
    extent = len(info) + data_bytes + 100  # at most, with the other chunks
    if extent > MAX_RIFF_BYTES or fields[3] > MAX_RIFF_BYTES:
        most = (MAX_RIFF_BYTES - len(info) - 100) // frame_bytes
        raise ExportFailed(
            f"{frames:,} rows are over the 4 GiB that a WAV file can hold; select at most {most:,} rows with "
            "start and stop, or export as .parquet or .npy"
        )
    before = _chunk(b"fmt ", struct.pack("<HHIIHH", *fields) + bytes(2 if is_float else 0))
    if is_float:
        before += _chunk(b"fact", struct.pack("<I", frames))
    before += info
    riff_bytes = 4 + len(before) + 8 + data_bytes + data_bytes % 2
    head = struct.pack("<4sI4s", b"RIFF", riff_bytes, b"WAVE")
    return head + before + struct.pack("<4sI", b"data", data_bytes)


def _info(export: RowsToExport) -> bytes:
    texts = {b"INAM": export.source.reference, b"ISFT": "Windvane", b"ICMT": export.described_as_json()}
    if export.rows:
        seconds, ns = divmod(int(export.source.times_ns[export.rows.start]), _NS_PER_S)
        texts[b"ICRD"] = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ns:09}Z"
    chunks = [_chunk(name, text.encode() + b"\0") for name, text in texts.items()]
    return _chunk(b"LIST", b"INFO" + b"".join(chunks))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack("<4sI", name, len(data)) + data + bytes(len(data) % 2)
