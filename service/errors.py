"""Everything that can go wrong, as one tree. It knows nothing of HTTP: `api/problems.py` gives each its status.

FlowersError
├── UsageError                  asked wrongly (exit code 2)
│   ├── SettingsError           a flag or an environment variable is out of bounds or unknown
│   ├── DatasetError            the folder of photographs cannot be trained on or evaluated
│   └── InvalidParameter        a parameter of one request is out of range
├── ImageError                  one image cannot be answered; its neighbours can
│   ├── MissingImage            there is no image, or it has no bytes
│   ├── ImageBytesTooLarge      more than `max_image_bytes`
│   ├── ImageTooLarge           more pixels to decode than `max_image_pixels`, judged from the header
│   ├── TooManyImages           more images than one request may carry
│   ├── UnsupportedImageFormat  not one of the accepted formats
│   └── InvalidImage            broken, truncated or hostile
├── RequestError                the request cannot be read
│   ├── MalformedRequest        it, or its multipart body, cannot be parsed; not one Host
│   ├── HeadTooLarge            more than 32 KiB of header or trailer fields
│   ├── UnsupportedMediaType    another kind of body
│   ├── UnsupportedEncoding     a Content-Encoding
│   ├── BodyTooSlow             did not arrive within `body_timeout_s`
│   └── Unauthorized            an API key is wanted and none valid came
├── ServiceError                the request is fine, the service cannot answer it now
│   ├── QueueFull               `max_queue_size` images already wait, or no process can be had for this one
│   ├── NotReady                no verified, warmed model, or its engine in trouble
│   ├── Draining                shutting down
│   ├── DeadlineExceeded        the caller's or the server's own deadline has passed
│   ├── OutOfMemory             no memory, process or thread can be had for it
│   └── EngineFailed            the engine raised; its batch has no answer
├── StoreError                  the model store
│   ├── ModelNotFound           no such model
│   ├── VersionNotFound         no such version
│   ├── InvalidVersion          a version whose files are missing, changed or of a newer format
│   │   └── ChangedVersion      its files changed while it was loaded
│   └── PublishError            a version could not be written
├── DeviceUnavailable           the device that was asked for cannot be used
├── DownloadError               the data set could not be fetched, or is not what was expected
├── WeightsError                a file of pretrained weights is missing, changed or of another format
└── TrainingError               a training could not go on
"""

import errno
import re

_NO_ROOM = frozenset({errno.ENOMEM, errno.EAGAIN})  # the second is what `fork` says
# ONNX Runtime, TensorFlow, Pillow, libavif and Python say it in a text only.
_OUT_OF_MEMORY = re.compile(
    r"bad_alloc|out of memory|not enough memory|insufficient memory|cannot allocate memory|failed to allocate|"
    r"resource ?exhausted|\boom when allocating|can't start new thread",
    re.IGNORECASE,
)


class FlowersError(Exception):
    """Root of the tree; its text is for people: what happened, what was expected, what to do."""


class UsageError(FlowersError):
    """Asked wrongly: repeating it unchanged will fail again."""


class SettingsError(UsageError):
    """A setting is unknown or out of bounds."""


class DatasetError(UsageError):
    """The folder of photographs is missing, empty, or otherwise nothing to train on or evaluate."""


class InvalidParameter(UsageError):
    """A parameter of one request is out of range."""


class ImageError(FlowersError):
    """One image cannot be answered."""


class MissingImage(ImageError):
    """There is no image, or it has no bytes."""


class ImageBytesTooLarge(ImageError):
    """The file is longer than `max_image_bytes`."""


class ImageTooLarge(ImageError):
    """The header announces more pixels to decode than `max_image_pixels`. Nothing was decoded."""


class TooManyImages(ImageError):
    """The request carries more images than one request may."""


class UnsupportedImageFormat(ImageError):
    """The bytes are not one of the accepted image formats."""


class InvalidImage(ImageError):
    """The bytes begin like an image but are broken, truncated or hostile."""


class RequestError(FlowersError):
    """The request cannot be read."""


class MalformedRequest(RequestError):
    """The request or its multipart body cannot be parsed, or it has no Host header, or two."""


class HeadTooLarge(RequestError):
    """The request line and its fields, or the trailer fields, are longer than 32 KiB."""


class UnsupportedMediaType(RequestError):
    """The body is neither multipart nor an image."""


class UnsupportedEncoding(RequestError):
    """The request has a Content-Encoding."""


class BodyTooSlow(RequestError):
    """The body did not arrive within `body_timeout_s`."""


class Unauthorized(RequestError):
    """API keys are configured and none valid was sent."""


class ServiceError(FlowersError):
    """The request is fine; the service cannot answer it now."""


class QueueFull(ServiceError):
    """`max_queue_size` images already wait, or there is no process for a picture that needs one."""


class NotReady(ServiceError):
    """No verified, warmed model can answer, or its engine is in trouble."""


class Draining(ServiceError):
    """The service is shutting down and takes nothing new."""


class DeadlineExceeded(ServiceError):
    """The deadline passed before the work was begun; it was not computed."""


class OutOfMemory(ServiceError):
    """The machine has no memory, process or thread for this now. The input is not at fault."""


class EngineFailed(ServiceError):
    """The engine call raised; every image of that batch gets this error."""


class StoreError(FlowersError):
    """The model store, or something in it, cannot be used."""


class ModelNotFound(StoreError):
    """No model of that name is in the store."""


class VersionNotFound(StoreError):
    """The model has no such version."""


class InvalidVersion(StoreError):
    """Files of the version are missing or changed, or its format is newer than this program."""


class ChangedVersion(InvalidVersion):
    """Files of the version changed between verification and loading. It may be sound now."""


class PublishError(StoreError):
    """The version could not be written; nothing of it is visible."""


class DeviceUnavailable(FlowersError):
    """The device that was asked for cannot be used here."""


class DownloadError(FlowersError):
    """The data set could not be fetched, or is not what was expected."""


class WeightsError(FlowersError):
    """A file of pretrained weights is missing, not what was expected, or not readable."""


class TrainingError(FlowersError):
    """A training could not go on."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error, or one that led to it, is for want of memory, a process or a thread.

    The input is not to blame for such an error. It may succeed later.
    """
    while error is not None:
        if isinstance(error, MemoryError | OutOfMemory):
            return True
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        if not isinstance(error, FlowersError) and _OUT_OF_MEMORY.search(f"{type(error).__name__} {error}"):
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False
