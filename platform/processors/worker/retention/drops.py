"""Drops the beginnings of one stream's archive and arrays; open or closed, as far as a commit covers them."""

from collections.abc import Mapping

from ....bus.interface import TopicPartition
from ....errors import StoreLocked, WindvaneError
from ....store.databases.checkpoint_records import StreamCheckpoint
from ....store.databases.interfaces import CheckpointDatabase
from ....store.interface import StoreEngine
from ..instrumentation import RetentionFailed
from ..pipeline.output_arrays import OutputArrays
from ..pipeline.telemetry import WorkerTelemetry
from ..progress.ownership import Ownership
from ..stream_state import StreamState


class StreamDrops:
    """Carries out the drops that were requested of a stream. Only the thread that has claimed it calls this.

    An open stream has the locks of its files. A closed one is locked and resumed as when it is opened, and
    closed again; its operations are not loaded.
    """

    def __init__(
        self,
        store: StoreEngine,
        checkpoints: CheckpointDatabase,
        owned: Ownership,
        telemetry: WorkerTelemetry,
    ) -> None:
        self._store = store
        self._checkpoints = checkpoints
        self._owned = owned
        self._telemetry = telemetry

    def carry_out(self, stream: StreamState, stops: Mapping[str, int]) -> None:
        """Drops what is before `stops`, by output: a row, or a byte of the archive.

        Raises StoreFailed if the stream is open and its files can no longer be written.
        """
        pipeline = stream.pipeline
        if pipeline is not None:
            for output, stop in stops.items():
                if output != stream.reference or not pipeline.awaits_adopted(stream.adopted_chunks):
                    pipeline.drop_before(output, stop)
            return
        try:
            self._drop_closed(stream.reference, stops)
        except StoreLocked:
            pass  # another process writes it, and its owner drops what has expired
        except (WindvaneError, OSError) as error:
            self._telemetry.emit(RetentionFailed(stream.reference, str(error) or repr(error)))

    def _drop_closed(self, reference: str, stops: Mapping[str, int]) -> None:
        with self._store.stream(reference) as recorded:
            attrs = recorded.attrs
        with self._store.stream_writer(reference, attrs=attrs) as archive:
            # Read with the lock held: until then another worker may have committed more.
            committed = self._checkpoints.stream(reference)
            if committed is None or not self._is_owned(committed):
                return
            archived = committed.outputs.get(reference)
            if archived is None:
                return
            database_id = self._checkpoints.database_id
            archive.resume(archived, database_id=database_id)
            # The bus may still redeliver adopted chunks until it has delivered a later one.
            awaits_adopted = committed.adopted_chunks and archived.chunks <= committed.adopted_chunks
            if reference in stops and archived.uid == archive.uid and not awaits_adopted:
                archive.drop_before(min(stops[reference], archived.length))
            arrays = OutputArrays(
                reference,
                self._store,
                committed.outputs,
                database_id=database_id,
                new_output=lambda _: None,
            )
            for output, stop in stops.items():
                if output != reference and (length := committed.outputs.get(output)) is not None:
                    arrays.drop_before(output, min(stop, length.length), uid=length.uid)

    def _is_owned(self, committed: StreamCheckpoint) -> bool:
        return committed.partition is not None and TopicPartition(*committed.partition) in self._owned
