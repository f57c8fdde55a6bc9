"""Model and version that a path names, and the limits of a request, for protocols with tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from service.api.base64_images import decode_image
from service.api.json_bodies import JsonValue, max_body_bytes
from service.api.multipart import image_too_large
from service.api.routes.health import require_ready
from service.api.service import service_of
from service.api.upload import UploadLimits
from service.engines.engine import Probabilities
from service.engines.open_version import ServedVersion
from service.errors import (
    ImageBytesTooLarge,
    MissingImage,
    ModelNotFound,
    TooManyImages,
    UnsupportedEncoding,
    VersionNotFound,
)
from service.imaging.pixels import Pixels

NAME, VERSION = "name", "version"
"""Parameters of paths."""


@dataclass(frozen=True)
class TensorLimits:
    """Limits of one request.

    Attributes:
        upload: Those of every upload, and of one image file.
        max_images: Most images.
        max_bytes: Most bytes of all image files.
    """

    upload: UploadLimits
    max_images: int
    max_bytes: int

    def max_body_bytes(self, request: Request) -> int:
        """Return the limit of a body. The queue must hold it."""
        return min(max_body_bytes(self.max_bytes), service_of(request).admission.max_queue_bytes)

    def check_count(self, num_images: int) -> None:
        """Refuse too many images, before their pixels are read. Raises `TooManyImages`, `MissingImage`."""
        if num_images > self.max_images:
            raise TooManyImages(f"The request has {num_images} images. Send up to {self.max_images} in a request.")
        if num_images < 1:
            raise MissingImage("The request has no image. Send one at least.")

    def decode_base64(self, values: Sequence[tuple[str, JsonValue]]) -> list[bytes | Pixels]:
        """Decode image files by the names of their places. Raises as `check_count` and `decode_image`."""
        self.check_count(len(values))
        files: list[bytes | Pixels] = []
        num_bytes = 0
        for name, value in values:
            file = decode_image(value, name, self.upload.max_image_bytes)
            num_bytes += len(file)
            self.check_bytes(num_bytes)
            files.append(file)
        return files

    def check_file(self, num_bytes: int) -> None:
        """Refuse one image file of so many bytes. Raises `ImageBytesTooLarge`."""
        if num_bytes > self.upload.max_image_bytes:
            raise image_too_large(self.upload.max_image_bytes)

    def check_bytes(self, num_bytes: int) -> None:
        """Refuse image files of so many bytes together. Raises `ImageBytesTooLarge`."""
        if num_bytes > self.max_bytes:
            raise ImageBytesTooLarge(f"The images have more than {self.max_bytes} bytes. Send several requests.")


def find_served(request: Request) -> ServedVersion:
    """Return the live version, if the path names it.

    Raises:
        ModelNotFound, VersionNotFound: The path names another model or version.
        NotReady: No version is live.
    """
    live_model = service_of(request).live_model
    name = request.path_params[NAME]
    if name != live_model.model:
        raise ModelNotFound(f"No model is served as {name[:64]!r}. Use the model's name, as in GET /models.")
    served = live_model.require()
    check_version(request, served)
    return served


def check_version(request: Request, served: ServedVersion) -> None:
    """Raise `VersionNotFound` if the path names another version than this one."""
    version = request.path_params.get(VERSION, str(served.version))
    if version != str(served.version):
        raise VersionNotFound(
            f"Version {version[:20]!r} of {served.model} is not live. Version {served.version} is. Ask for that, or "
            "leave the version out."
        )


def require_ready_version(request: Request) -> ServedVersion:
    """Return the live version, if the path names it and the service takes work. Raises as `find_served`, `Draining`."""
    served = find_served(request)
    require_ready(service_of(request))
    return served


def list_versions(request: Request, served: ServedVersion) -> list[str]:
    """List the versions of the served model, oldest first. Versions that were refused are left out."""
    live_model = service_of(request).live_model
    listed = (live_model.snapshot or {}).get(served.model)
    stored = {version.version for version in listed.versions} if listed else set()
    return [str(version) for version in sorted((stored - live_model.watch.refused.keys()) | {served.version})]


def check_encoding(request: Request) -> None:
    """Refuse a compressed body. Raises `UnsupportedEncoding`. Any media type is taken."""
    if "content-encoding" in request.headers:
        raise UnsupportedEncoding(
            "The request has a Content-Encoding. Send the body without one. With tritonclient, leave "
            "request_compression_algorithm out."
        )


def describe_pixels(served: ServedVersion) -> dict[str, str | int]:
    """Describe how a client makes pixels of a photograph, as this server does it with image files."""
    preprocessing = served.metadata.preprocessing
    return {
        "resize": preprocessing.resize,
        "shorter_side": preprocessing.shorter_side,
        "image_size": preprocessing.image_size,
        "filter": "bilinear with antialiasing, as Pillow's",
        "pixels": "upright sRGB, 0 to 255",
    }


def list_row(probabilities: Probabilities) -> list[float]:
    """Return the numbers of a row as `/predict` writes them: the shortest decimals that are these float32."""
    return [float(str(value)) for value in probabilities]
