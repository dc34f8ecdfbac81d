"""The one tree of errors.

Every message names the thing, the cause and the next step, and can be shown to a user unchanged. A class also
derives from the built-in exception of the same meaning, if there is one, so that callers may catch either.
"""

from collections.abc import Mapping
from typing import ClassVar

from .rejections import RejectionCode


class WindvaneError(Exception):
    """The root: catch this to catch every error that Windvane raises on purpose.

    Attributes:
        problem_name: The name of a class in the `type` of problem details, if it is not that of the class: a
            class that was renamed keeps it for its clients.
    """

    problem_name: ClassVar[str | None] = None


class ConfigInvalid(WindvaneError, ValueError):
    """A setting, on the command line, in the environment or in windvane.toml, cannot be used."""


class PolicyInvalid(WindvaneError, ValueError):
    """An ingestion policy is not valid; the one in force stays."""


class DocumentNotFound(WindvaneError, LookupError):
    """The catalog has no such document."""


class RevisionConflict(WindvaneError, RuntimeError):
    """Another client changed the document after it was read."""


class StreamNotFound(WindvaneError, LookupError):
    """The store has no data stream of that reference."""


class ArrayNotFound(WindvaneError, LookupError):
    """The store has no data array of that reference."""


class ArrayNotSealable(WindvaneError, ValueError):
    """The rows of the array cannot be shown to other programs as a Zarr array."""


class RangeGone(WindvaneError, IndexError):
    """Retention has dropped the requested bytes or rows."""


class SelectionInvalid(WindvaneError, ValueError):
    """A bound of a range is neither a number nor a time."""


class ColumnNotFound(WindvaneError, LookupError):
    """An array has no column of that name, or its rows have no columns at all."""


class StoreLocked(WindvaneError, RuntimeError):
    """Another writer has the file: there is one writer at a time."""


class StoreFailed(WindvaneError, OSError):
    """A write or sync of the store failed, and the writer has stopped.

    A later fsync would report success for lost pages, so the worker starts over at its last checkpoint.
    """


class AddressSpaceUsed(StoreFailed):
    """The process has no room for another mapping of the store: RLIMIT_AS, or vm.max_map_count."""


class DiskFull(StoreFailed):
    """The file system is full (ENOSPC, EDQUOT). Nothing that was acked is lost; make room."""


class DatabaseDamaged(StoreFailed):
    """A database file is damaged or cannot be read. It is unchanged until a command repairs it."""


class DatabaseUnavailable(StoreFailed, ConnectionError):
    """A database server cannot be reached, or ended the session; what was committed is there."""


class StreamDamaged(WindvaneError, OSError):
    """The files of one stream or array lack committed data, or cannot be read (EIO).

    That stream stops, and its files are unchanged; every other stream continues.
    """


class CheckpointMissing(StreamDamaged):
    """A stream or array has bytes that may have been committed, and no checkpoint covers them."""


class BusUnavailable(WindvaneError, ConnectionError):
    """The bus is unavailable; chunks that were not acked stay with their senders."""


class EnvelopeInvalid(WindvaneError, ValueError):
    """Bytes on the bus are not a chunk in Avro single-object encoding."""


class FramingError(WindvaneError, ValueError):
    """The bytes of a connection are not the forward protocol; the gateway closes the connection."""


class ChunkRejected(WindvaneError, ValueError):
    """A chunk is rejected; `code` is its row of `rejections.REJECTIONS`."""

    problem_name = "ChunkRefused"

    def __init__(self, code: RejectionCode, message: str) -> None:
        super().__init__(message)
        self.code: RejectionCode = code


class TimeInvalid(ChunkRejected):
    """The time of an event is not a time, or not between 1970 and 2106."""

    def __init__(self, message: str) -> None:
        super().__init__("bad-time", message)


class JsonInvalid(WindvaneError, ValueError):
    """The text of a record is not JSON, not an object, or nested too deeply."""


class BodyTooSlow(WindvaneError, TimeoutError):
    """The body of an HTTP request pauses too long, or is slower than the server's floor."""


class OperationFailed(WindvaneError, RuntimeError):
    """A step of a pipeline cannot process its input."""


class DeadLetterNotFound(WindvaneError, LookupError):
    """There is no dead letter of that ID: it never existed, was removed, or was evicted."""


class DocumentInvalid(WindvaneError, ValueError):
    """The type, state, reference, title or body of a document is not allowed."""


class ReferenceInvalid(DocumentInvalid):
    """A document cannot have this reference."""


class TransitionRejected(WindvaneError, ValueError):
    """A document is not in a state that the transition starts from."""


class TransitionNotFound(WindvaneError, LookupError):
    """The type of the document has no transition of that name."""


class AttachmentNotFound(WindvaneError, LookupError):
    """The document has no attachment of that name."""


class ChangesForgotten(WindvaneError, LookupError):
    """The catalog no longer knows all deletions since that revision; read all documents instead."""


class CatalogUnavailable(WindvaneError, ConnectionError):
    """The catalog's database is unavailable; the request had no effect."""


class BusLocked(BusUnavailable):
    """Another process writes to this partition of the embedded bus: there is one writer at a time."""


class BusCorrupt(WindvaneError, OSError):
    """A durable message of the bus is damaged or missing; it is never skipped silently."""


class PartitionHalted(WindvaneError):
    """A partition of the bus cannot be read further; all others can.

    `offset` is the first offset of the partition that cannot be read. Reading can resume at `resume_at`
    (None: unknown); then `missing` messages are missing (None: unknown).
    """

    def __init__(
        self,
        message: str,
        *,
        topic: str,
        partition: int,
        offset: int,
        resume_at: int | None,
        missing: int | None,
    ) -> None:
        super().__init__(message)
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.resume_at = resume_at
        self.missing = missing


class MessagesDamaged(PartitionHalted, BusCorrupt):
    """Durable messages of a partition are damaged or lost."""


class PartitionUnreadable(PartitionHalted, BusUnavailable):
    """The disk cannot read a partition's files; the reader retries every few seconds."""


class MessagesGone(PartitionHalted, RangeGone):
    """The position is outside of the log: retention dropped its messages, or they were never written."""


class LogReplaced(MessagesGone):
    """The topic was deleted and recreated: the position belongs to the deleted log."""


class DiskReserveUsed(BusUnavailable):
    """The disk has no space beyond its reserve; chunks that were not acked stay with their senders."""


class TierFailed(WindvaneError, RuntimeError):
    """A process of the platform cannot be started; the processes that were started have ended."""


class HomeNotFound(WindvaneError, LookupError):
    """The home directory does not exist."""


class OverviewImpossible(WindvaneError, ValueError):
    """A data array has no overview of the requested kind or size."""


class BackupInvalid(WindvaneError, ValueError):
    """A folder is not a whole backup, or files of it are damaged."""


class BackupFailed(WindvaneError, RuntimeError):
    """A home could not be copied as one state; the former backup in the folder is unchanged."""


class ExportFailed(WindvaneError, ValueError):
    """A data array cannot be exported in the requested format."""


class ExportUnavailable(ExportFailed):
    """A format of exports needs a package that is not installed."""


class InputInvalid(WindvaneError, ValueError):
    """A file to send is not valid in its format; `send` stops at that place."""


class HandshakeFailed(WindvaneError, ConnectionError):
    """The handshake of a forward connection failed: wrong key, user or protocol."""


class PartitionLost(WindvaneError, RuntimeError):
    """Other workers own partitions that this one owned; its commit had no effect.

    `owners` has the name of the present owner by (topic, partition).
    """

    def __init__(self, owners: Mapping[tuple[str, int], str]) -> None:
        which = ", ".join(f"{topic}/{partition} ({who})" for (topic, partition), who in owners.items())
        super().__init__(
            f"other workers have taken over {which}; this worker releases them, and they repeat its work "
            "since its last checkpoint"
        )
        self.owners = owners


class RateExceeded(BusUnavailable):
    """A chunk is over its policy's rate and was not accepted; its sender has to retry later."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OperationFileInvalid(WindvaneError, ValueError):
    """A file in HOME/operations cannot be loaded; its former operations stay."""


class ExtensionInvalid(WindvaneError, ImportError):
    """An extension of an installed package cannot be used; the message names the package and the cause."""


class ResultsNotPublished(WindvaneError, OSError):
    """The worker ended before the bus accepted its results; no checkpoint covers them."""


class ModelNotFound(WindvaneError, LookupError):
    """There is no model of that stream and step."""


class ModelRejected(WindvaneError, PermissionError):
    """A model is not read because other users can write it, or not used because it does not fit."""

    problem_name = "ModelRefused"


class FileUntrusted(ModelRejected):
    """A file that can run code when it is read is not read, because another user can write it."""


class StateInvalid(WindvaneError, ValueError):
    """A saved state of an operation cannot be decoded; `code` is the stable name of the reason."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class AlarmActionRejected(WindvaneError, ValueError):
    """An action on an alarm is not possible in its state, or its text is missing or too long."""

    problem_name = "AlarmActionRefused"


class AlarmShelvedTooLong(AlarmActionRejected):
    """An alarm cannot be shelved for more than a year."""

    def __init__(self) -> None:
        super().__init__("An alarm can be shelved for a year at most; clear it instead.")


class RowsWouldBeLost(WindvaneError, RuntimeError):
    """Recomputed outputs lack rows that the present ones have; the present ones stay."""


# The names of former versions; code of users catches them.
ChunkRefused = ChunkRejected
ModelRefused = ModelRejected
AlarmActionRefused = AlarmActionRejected
