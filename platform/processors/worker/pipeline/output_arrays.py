"""The data arrays of one data stream: each is opened when its step has the first rows for it."""

import time
from collections.abc import Callable, Mapping

from ....errors import StoreLocked
from ....store.databases.checkpoint_records import OutputLength
from ....store.interface import ArrayWriter, StoreEngine
from ...operations.base.block import Block
from .catalog_link import NewOutput

_LOCK_TIMEOUT_S = 5.0
_LOCK_RETRY_S = 0.01


class OutputArrays:
    """Writers of the arrays `stream:step`, by step. The caller has the lock of the stream's archive."""

    def __init__(
        self,
        stream: str,
        store: StoreEngine,
        committed: Mapping[str, OutputLength],
        *,
        database_id: bytes,
        new_output: Callable[[NewOutput], None],
    ) -> None:
        """`committed` has the outputs of the stream's last checkpoint, by reference."""
        self._stream = stream
        self._store = store
        self._database_id = database_id
        self._new_output = new_output
        self._writers: dict[str, ArrayWriter] = {}
        self._lengths = {output: length for output, length in committed.items() if output != stream}
        for output, length in self._lengths.items():  # a reprocessing was killed after its commit
            store.put_rebuilt_in_place(output, length.uid)

    def __len__(self) -> int:
        """The number of open arrays."""
        return len(self._writers)

    def get(self, step: str) -> ArrayWriter | None:
        """The open array of the step; None after a restart, until the step has rows again."""
        return self._writers.get(step)

    def writer_for(self, step: str, block: Block) -> ArrayWriter:
        """Returns the array of the step; another one if rows of the block do not fit the current one."""
        writer = self._writers.get(step)
        if writer is None or not _fits(writer, block):
            if writer is not None:
                writer.close()
            writer = self._open(step, block)
        return writer

    def _open(self, step: str, block: Block) -> ArrayWriter:
        reference = f"{self._stream}:{step}"
        writer = self._locked_writer(reference, block)
        try:
            writer.resume(self._lengths.get(reference), database_id=self._database_id)
        except BaseException:
            writer.close()
            raise
        self._writers[step] = writer
        described = {
            "stream": self._stream,
            "dtype": block.rows.dtype.str,
            "row_shape": list(writer.row_shape),
        }
        self._new_output(NewOutput("array", reference, described))
        return writer

    def _locked_writer(self, reference: str, block: Block) -> ArrayWriter:
        """Opens the array; the locks of a killed writer may be released after that of the archive."""
        give_up_at_s = time.monotonic() + _LOCK_TIMEOUT_S
        while True:
            try:
                return self._store.array_writer(
                    reference,
                    dtype=block.rows.dtype,
                    row_shape=block.rows.shape[1:],
                    attrs={"stream": self._stream, **block.attrs},
                    rate_hz=block.rate_hz,
                )
            except StoreLocked:
                if time.monotonic() > give_up_at_s:
                    raise
                time.sleep(_LOCK_RETRY_S)

    def lengths(self) -> Mapping[str, OutputLength]:
        """For a checkpoint: the current length of each array by reference, whether it is open or not."""
        for step, writer in self._writers.items():
            self._lengths[f"{self._stream}:{step}"] = writer.snapshot()
        return self._lengths

    def mark_committed(self, committed: Mapping[str, OutputLength]) -> None:
        """Records these committed lengths in the open arrays."""
        for reference, length in committed.items():
            step = reference.partition(":")[2]
            if step and (writer := self._writers.get(step)) is not None:
                writer.mark_committed(length)

    def drop_before(self, reference: str, row: int, *, uid: bytes) -> None:
        """Drops rows of the array of this uid; one that is not open, such as of a former step, is opened."""
        writer = self._writers.get(reference.partition(":")[2])
        if writer is not None:
            if writer.uid == uid:
                writer.drop_before(row)
            return
        length = self._lengths.get(reference)
        if length is None or length.uid != uid or self._store.array_uid(reference) != uid:
            return
        with self._store.array(reference) as array:
            dtype, row_shape, attrs = array.dtype, array.row_shape, array.attrs
        with self._store.array_writer(reference, dtype=dtype, row_shape=row_shape, attrs=attrs) as closed:
            closed.resume(length, database_id=self._database_id).drop_before(row)

    def close(self) -> None:
        """Releases the locks of the arrays."""
        for writer in self._writers.values():
            writer.close()


def _fits(writer: ArrayWriter, block: Block) -> bool:
    return writer.dtype == block.rows.dtype and writer.row_shape == block.rows.shape[1:]
