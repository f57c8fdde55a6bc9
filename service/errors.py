"""Errors of the service, as one tree."""

import errno
import re
from dataclasses import dataclass

_NO_ROOM = frozenset({errno.ENOMEM, errno.EAGAIN})  # the second is from `fork`
# ONNX Runtime, TensorFlow, Pillow, libavif and Python have no class for it.
_OUT_OF_MEMORY = re.compile(
    r"bad_alloc|out of memory|not enough memory|insufficient memory|cannot allocate memory|failed to allocate|"
    r"resource ?exhausted|\boom when allocating|can't start new thread",
    re.IGNORECASE,
)


class FlowersError(Exception):
    """Root of the tree. Its text says what happened, what was expected and what to do."""


class UsageError(FlowersError):
    """The user asked for something impossible. A repetition fails again."""


class SettingsError(UsageError):
    """A setting is unknown or out of bounds."""


class DatasetError(UsageError):
    """The folder of photographs cannot be trained on or evaluated."""


class InvalidParameter(UsageError):
    """A parameter of one request is out of range."""


class ImageError(FlowersError):
    """One image cannot be answered."""


class MissingImage(ImageError):
    """There is no image, or it has no bytes."""


class ImageBytesTooLarge(ImageError):
    """The file is longer than `max_image_bytes`, or the batch than `max_batch_bytes`."""


class ImageTooLarge(ImageError):
    """The header announces more pixels to decode than `max_image_pixels`. Nothing was decoded."""


class TooManyImages(ImageError):
    """The request has more images than the limit."""


class UnsupportedImageFormat(ImageError):
    """The file has none of the accepted image formats."""


class InvalidImage(ImageError):
    """The file starts like an image but is corrupt, truncated or malicious."""


class RequestError(FlowersError):
    """The request cannot be read."""


class MalformedRequest(RequestError):
    """The request or its multipart body cannot be parsed, or it has not one Host."""


class HeadTooLarge(RequestError):
    """The request line and its fields, or the trailer fields, are longer than 32 KiB."""


class UnsupportedMediaType(RequestError):
    """The body is neither multipart nor an image."""


class UnsupportedEncoding(RequestError):
    """The body is compressed."""


class BodyTooSlow(RequestError):
    """The body did not arrive within `body_timeout_s`."""


class Unauthorized(RequestError):
    """The request has no valid API key."""


class ServiceError(FlowersError):
    """The service cannot answer now. The request is not at fault."""


class QueueFull(ServiceError):
    """The queue is full, or no decoding process is available."""


class NotReady(ServiceError):
    """No verified and warm model is there, or its engine is in trouble."""


class Draining(ServiceError):
    """The service is shutting down."""


class DeadlineExceeded(ServiceError):
    """The deadline passed before the image was computed."""


class OutOfMemory(ServiceError):
    """The machine lacks memory, a process or a thread."""


class EngineFailed(ServiceError):
    """The engine call raised. Every image of its batch gets this error."""


class StoreError(FlowersError):
    """The model store cannot be used."""


class ModelNotFound(StoreError):
    """No model of that name is in the store."""


class VersionNotFound(StoreError):
    """The model has no such version."""


class InvalidVersion(StoreError):
    """Files of the version are missing, changed, or of a newer format."""


class ChangedVersion(InvalidVersion):
    """Files of the version changed while it was loaded. It may be sound now."""


class PublishError(StoreError):
    """The version could not be written. Nothing of it is visible."""


class ArchiveError(StoreError):
    """The archive is not the expected one, or holds no version. Nothing of it was kept."""


class RemoteStoreError(StoreError):
    """The remote store cannot be read, or does not answer as one. Another try may succeed."""


class WorkerEnded(FlowersError):
    """A worker ended before it answered its supervisor."""


class DeviceUnavailable(FlowersError):
    """The device cannot be used on this machine."""


@dataclass(frozen=True)
class ProblemDocument:
    """Problem of an answer (RFC 9457). `type` is such as /problems/invalid-image, and never varies for one kind."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


class ClientError(FlowersError):
    """The client has no prediction. `problem` is the service's explanation. None means that there is none."""

    problem: ProblemDocument | None = None


class UnreadableImage(ClientError):
    """The image cannot be read or encoded. Nothing was sent."""


class ServiceUnreachable(ClientError):
    """No connection to the service opens."""


class AnswerLost(ClientError):
    """The connection broke before the answer was whole."""


class ClientTimeout(ClientError):
    """The deadline of the call passed."""


class ForeignAnswer(ClientError):
    """The answer is not of this service."""


class RefusedByService(ClientError):
    """The service answered with a problem."""

    def __init__(self, problem: ProblemDocument) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        """Return the detail of the problem."""
        return self.problem.detail if self.problem else ""


class DownloadError(FlowersError):
    """A download failed, or is not the expected one."""


class WeightsError(FlowersError):
    """A file of pretrained weights is missing, unreadable, or not the expected one."""


class ExportError(FlowersError):
    """The exported file does not answer as the SavedModel does. Nothing was written."""


class ScoringError(FlowersError):
    """The storage or the cluster failed before all photographs were scored. What is written is kept."""


class TrainingError(FlowersError):
    """A training could not go on."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error, or its cause, is a lack of memory, of a process or of a thread."""
    while error is not None:
        if isinstance(error, MemoryError | OutOfMemory) or (isinstance(error, OSError) and error.errno in _NO_ROOM):
            return True
        if not isinstance(error, FlowersError) and _OUT_OF_MEMORY.search(f"{type(error).__name__} {error}"):
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False
