"""Writers that go on where they find their files, as after a commit of all that is there."""

from typing import TypeVar

from windvane.store.files.data_array import DataArrayWriter
from windvane.store.files.data_stream_writer import DataStreamWriter

Writer = TypeVar("Writer", DataStreamWriter, DataArrayWriter)
DATABASE_ID = bytes(16)


def resumed(writer: Writer) -> Writer:
    """The writer, at the end of what it has found; an array that differs is set aside, as ever."""
    try:
        return writer.resume(writer.found, database_id=DATABASE_ID)
    except BaseException:
        writer.close()
        raise
