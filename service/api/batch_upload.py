"""Request -> the images of a batch, one after another. It is read no faster than its images are scored."""

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from starlette.requests import Request

from service import errors
from service.api.multipart import FIELD, FormParser, Pieces, image_too_large
from service.api.upload import FORM, MAX_MULTIPART_OVERHEAD_BYTES, UploadLimits, check_length, read_media_type
from service.inference.admission import Share, Ticket

_OVERHEAD_BYTES_AN_IMAGE = 1024  # its boundary, its headers and its file name
_SLICE_BYTES = 64 * 1024
_GRACE_S = 1.0  # in which the rest of a body may arrive after the deadline, so that each image has its place


@dataclass(frozen=True)
class BatchLimits:
    """Limits of every batch.

    Attributes:
        upload: Limits of one image, and of the time for a body.
        max_images: Most images of a batch.
        max_bytes: Most bytes of all images of a batch.
    """

    upload: UploadLimits
    max_images: int
    max_bytes: int

    def too_large(self) -> errors.ImageBytesTooLarge:
        """Return the refusal of a batch with too many bytes."""
        return errors.ImageBytesTooLarge(
            f"This server takes batches of up to {self.max_bytes} bytes. Send the images in several requests."
        )


@dataclass(eq=False)
class Part:
    """One image of a batch as it arrived. With an `error` it has no bytes."""

    pieces: Pieces
    error: errors.FlowersError | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes that the ticket counts for the image."""
        return 0 if self.error else self.pieces.num_bytes


class BatchForm(FormParser):
    """Form with many images. An image over a limit of one image spoils only its own place."""

    def __init__(self, boundary: bytes, limits: BatchLimits, ticket: Ticket) -> None:
        super().__init__(boundary, limits.max_images)
        self._limits = limits
        self._ticket = ticket
        self._num_images = self._num_bytes = 0
        self._arriving = Part(Pieces())
        self._arrived: list[Part] = []

    @property
    def num_arriving_bytes(self) -> int:
        """Bytes of the image that arrives."""
        return self._arriving.num_bytes

    def take(self) -> list[Part]:
        """Return the images that have arrived since the last call."""
        arrived, self._arrived = self._arrived, []
        return arrived

    def finish(self) -> None:
        """Check the end of the form. Raises `MalformedRequest`, `MissingImage`."""
        self.check_end(has_image=self._num_images > 0)

    def begin_image(self) -> None:
        """Begin the next image. Raises `TooManyImages`."""
        if self._num_images == self._limits.max_images:
            detail = f"The form has more than {self._num_images} fields {FIELD!r}. Send the rest in another request."
            raise errors.TooManyImages(detail)
        self._num_images += 1
        self._arriving = Part(Pieces())

    def add_to_image(self, piece: bytes) -> None:
        """Keep the next bytes of the image, unless its place is spoilt. Raises `ImageBytesTooLarge` for the batch."""
        self._num_bytes += len(piece)
        if self._num_bytes > self._limits.max_bytes:
            raise self._limits.too_large()
        part = self._arriving
        if part.error is not None:
            return
        if part.num_bytes + len(piece) > self._limits.upload.max_image_bytes:
            self._spoil(image_too_large(self._limits.upload.max_image_bytes))
            return
        try:
            self._ticket.add_bytes(len(piece))
        except errors.QueueFull as error:
            self._spoil(error.with_traceback(None))  # its frames hold the body
        else:
            part.pieces.write(piece)

    def end_image(self) -> None:
        """End the image."""
        if not self._arriving.error and not self._arriving.num_bytes:
            self._arriving.error = errors.MissingImage("The field has no bytes. Send an image in each field 'file'.")
        self._arrived.append(self._arriving)
        self._arriving = Part(Pieces())

    def _spoil(self, error: errors.FlowersError) -> None:
        self._ticket.remove_bytes(self._arriving.num_bytes)
        self._arriving = Part(Pieces(), error)


class BatchUpload:
    """The body of one request for a batch.

    Args:
        request: Its body has not been read.
        ticket: Counts the bytes of images before they are kept.
        limits: Limits of every batch.
        gives_up_at: End of the client's own timeout, in seconds of the event loop. None means that it has none.

    Raises:
        UnsupportedEncoding, UnsupportedMediaType, MissingImage, ImageBytesTooLarge, MalformedRequest: The headers say
            so. The body is not read.
    """

    def __init__(self, request: Request, ticket: Ticket, limits: BatchLimits, gives_up_at: float | None) -> None:
        kind, boundary = read_media_type(request)
        overhead_bytes = MAX_MULTIPART_OVERHEAD_BYTES + limits.max_images * _OVERHEAD_BYTES_AN_IMAGE
        self._max_body_bytes = limits.max_bytes + overhead_bytes
        check_length(request, self._max_body_bytes, limits.too_large)
        if kind != FORM:
            raise errors.UnsupportedMediaType(
                f"The body is {kind[:80]!r}. Send a form with each image in a field 'file' "
                "(curl -F file=@one.jpg -F file=@two.jpg)."
            )
        self._form = BatchForm(boundary, limits, ticket)
        self._request = request
        self._limits = limits
        self._gives_up_at = gives_up_at

    @property
    def top_k(self) -> tuple[str, ...]:
        """The values of the fields `top_k` that have arrived."""
        return self._form.top_k

    async def read(self, share: Share) -> AsyncGenerator[Part]:
        """Yield each image in its order, when `share` has room for it.

        Raises:
            ImageBytesTooLarge: The batch has too many bytes.
            TooManyImages: It has too many images.
            MalformedRequest: The form cannot be parsed.
            MissingImage: It has no image.
            BodyTooSlow: It took too long to arrive. The time in which the share had no room does not count.
            DeadlineExceeded: The client's timeout passed, and the rest did not arrive within a second.
            ClientDisconnect: The client has hung up.
        """
        num_bytes = 0
        async with aclosing(self._receive()) as chunks:
            async for chunk in chunks:
                num_bytes += len(chunk)
                if num_bytes > self._max_body_bytes:
                    raise self._limits.too_large()
                start = 0
                while start < len(chunk):
                    end = start + await share.wait_for_bytes(min(_SLICE_BYTES, len(chunk) - start))
                    self._form.write(chunk[start:end])
                    start = end
                    for part in self._form.take():
                        await share.wait_for_image()
                        yield part
                await self._limits.upload.pause(self._form.num_arriving_bytes)
        self._form.finish()

    async def _receive(self) -> AsyncGenerator[bytes]:
        """Yield the body as it arrives. The clock of the body runs only while this waits for bytes."""
        clock = asyncio.get_running_loop().time
        left_s = self._limits.upload.body_timeout_s
        late_at = math.inf if self._gives_up_at is None else self._gives_up_at + _GRACE_S
        async with aclosing(self._request.stream()) as chunks:
            while True:
                began_at = clock()
                try:
                    async with asyncio.timeout_at(min(began_at + left_s, late_at)):
                        chunk = await anext(chunks, None)
                except TimeoutError:
                    if late_at < began_at + left_s:
                        detail = "The deadline passed while the body arrived. Allow more time."
                        raise errors.DeadlineExceeded(detail) from None
                    raise self._limits.upload.too_slow() from None
                if chunk is None:
                    return
                left_s -= clock() - began_at
                yield chunk
