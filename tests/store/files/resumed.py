"""Writers that resume at the end of their files, as if all of it had been committed."""

from typing import TypeVar

from windvane.store.files.data_array_writer import DataArrayWriter
from windvane.store.files.data_stream_writer import DataStreamWriter

Writer = TypeVar("Writer", DataStreamWriter, DataArrayWriter)
DATABASE_ID = bytes(16)


def resumed(writer: Writer) -> Writer:
    """The writer, at the end of the existing data; an array that differs is set aside, as always."""
    try:
        return writer.resume(writer.found, database_id=DATABASE_ID)
    except BaseException:
        writer.close()
        raise
