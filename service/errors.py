"""Everything that can go wrong, as one tree. It knows nothing of HTTP: `api/problems.py` gives each its status.

FlowersError
├── UsageError                  asked wrongly (exit code 2)
│   ├── SettingsError           a flag or an environment variable is out of bounds or unknown
│   ├── DatasetError            the folder of photographs cannot be trained on or evaluated
│   └── InvalidParameter        a parameter of one request is out of range
├── ImageError                  one image cannot be answered; its neighbours can
│   ├── MissingImage            there is no image, or it has no bytes
│   ├── ImageBytesTooLarge      more than `max_image_bytes`
│   ├── ImageTooLarge           more pixels than `max_image_pixels`, judged from the header
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
│   └── EngineFailed            the engine raised; its batch has no answer
├── StoreError                  the model store
│   ├── ModelNotFound           no such model
│   ├── VersionNotFound         no such version
│   ├── InvalidVersion          a version whose files are missing, changed or of a newer format
│   └── PublishError            a version could not be written
├── DeviceUnavailable           the device that was asked for cannot be used
├── DownloadError               the data set could not be fetched, or is not what was expected
├── WeightsError                a file of pretrained weights is missing, changed or of another format
└── TrainingError               a training could not go on
"""


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
    """The header announces more pixels than `max_image_pixels`; nothing was decoded."""


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
