"""Makes data arrays of format 1, as former versions wrote them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from windvane.store.databases.checkpoint_records import OutputLength
from windvane.store.files.description import dtype_to_json, write_description
from windvane.store.files.segmented_writer import SegmentedWriter
from windvane.store.files.store import Store

from tests.store.files.resumed import DATABASE_ID

SEGMENT_BYTES = 8192


def make_array_of_format_1(
    store: Store,
    reference: str,
    rows: NDArray[Any],
    times_ns: NDArray[np.int64],
    *,
    attrs: Mapping[str, Any],
    segment_bytes: int = SEGMENT_BYTES,
    database_id: bytes = DATABASE_ID,
) -> OutputLength:
    """Write the array; all of it is committed."""
    directory = store.array_directory(reference)
    with (
        SegmentedWriter(directory / "times", segment_bytes=segment_bytes).resume() as times_file,
        SegmentedWriter(directory / "rows", segment_bytes=segment_bytes).resume() as rows_file,
    ):
        for file, data in ((times_file, times_ns), (rows_file, rows)):
            file.append(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data)
            file.mark_committed(data.nbytes)
        description = {
            "dtype": dtype_to_json(rows.dtype),
            "row_shape": list(rows.shape[1:]),
            "attrs": dict(attrs),
            "uid": rows_file.uid.hex(),
            "database_id": database_id.hex(),
        }
        write_description(directory, description)
        return OutputLength(rows_file.uid, len(rows))
