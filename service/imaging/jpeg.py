"""A walk over the segments of a JPEG. It tells the decoded size, and whether the scans hold a whole image."""

import re
import struct
from dataclasses import dataclass, field

from service.errors import ImageTooLarge
from service.imaging.limits import PIXEL_BYTES
from service.imaging.refusals import cut_short, in_words, not_read, out_of_proportion

MAX_JPEG_PIXELS = 200_000_000
"""Most pixels in a file, however small it is decoded. The table of docs/reference/images.md has time and memory."""
ENOUGH = 512
"""Pixels of shorter side that large JPEGs are decoded to, at least: twice what networks see, so that resizing averages.

A photograph of 12 megapixels takes a quarter of the time. Its square differs by 0.3 levels (`benchmarks/decoding.py`).
"""
_SCALES = (8, 4, 2)
_COEFFICIENT_BYTES = 2
_MAX_MARKERS = 2_000  # a photograph has about 20; 160 with ten megabytes of metadata
_MAX_SCANS = 100  # encoders write 10 to 18; each is a pass over the whole image
_USUAL_SCANS = 20
_MAX_WORK = 1_000_000_000  # scans x pixels, beyond the scans that encoders write: about three seconds
_MAX_USUAL_WORK = 2_000_000_000  # ten scans of the largest JPEG: two seconds, six where a file is hostile
_MAX_FILL_BYTES = 4_096  # between header segments, in all: Pillow reads them one by one, in Python
_MAX_NOTES = 1024 * 1024  # bytes of EXIF, Photoshop data and tables, which Pillow reads in Python

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # neither a stuffed byte nor a restart
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEGMENTS = (frozenset(range(0xC0, 0xF0)) | {0xFE}) - {0xC8, 0xD8, 0xD9}  # a length follows these
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_OTHER_FRAMES = {0xC3: "is lossless", 0xC9: "is arithmetic-coded", 0xCA: "is arithmetic-coded"}
_ALL_COEFFICIENTS = 2**64 - 1

_NO_CODE = b"\xff\x00" * 8
"""64 bits of one, which are no code in any table: a decoder reads them, and they are hardly a block."""


@dataclass
class _Frame:
    """Header of a frame, and its scans so far."""

    marker: int = 0
    width: int = 0
    height: int = 0
    sampling: dict[int, int] = field(default_factory=dict)  # component: blocks of it where one has least
    num_blocks: int = 0  # of them in a unit that all components share
    most_sampling: int = 1
    coefficients: dict[int, int] = field(default_factory=dict)  # component: a bit for each that is there in full
    first_scan: int = 0  # components in it
    num_scans: int = 0

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def keeps_coefficients(self) -> bool:
        """Whether the decoder holds all of them before the first pixel."""
        return self.marker == _PROGRESSIVE or self.num_scans > 1 or self.first_scan < len(self.sampling)

    def read_header(self, marker: int, segment: bytes) -> None:
        precision, height, width, num_components = struct.unpack_from(">BHHB", segment)
        if marker not in (_BASELINE, _EXTENDED, _PROGRESSIVE):
            raise not_read("JPEG", _OTHER_FRAMES.get(marker, "is hierarchical"))
        if precision != 8:
            raise not_read("JPEG", f"has {precision} bits for each colour")
        if num_components not in (1, 3, 4):
            raise not_read("JPEG", f"has {num_components} colours")
        if width * height < self.pixels:
            return
        parts = struct.unpack_from(f">{3 * num_components}B", segment, 6)
        factors = [(part >> 4, part & 15) for part in parts[1::3]]
        self.marker, self.width, self.height = marker, width, height
        self.sampling = {name: across * down for name, (across, down) in zip(parts[::3], factors, strict=True)}
        self.num_blocks = sum(across * down for across, down in factors)
        self.most_sampling = max(1, max(across for across, _ in factors) * max(down for _, down in factors))

    def read_scan(self, segment: bytes) -> None:
        num_components = segment[0]
        names = segment[1 : 1 + 2 * num_components : 2]
        first, last, precision = struct.unpack_from(">3B", segment, 1 + 2 * num_components)
        self.num_scans += 1
        if self.num_scans == 1:
            self.first_scan = num_components
        band = _ALL_COEFFICIENTS
        if self.marker == _PROGRESSIVE:
            is_last_bit = precision & 15 == 0
            band = (1 << last + 1) - (1 << first) if is_last_bit and first <= last < 64 else 0
        for name in names:
            self.coefficients[name] = self.coefficients.get(name, 0) | band

    def is_whole(self) -> bool:
        return all(self.coefficients.get(name, 0) == _ALL_COEFFICIENTS for name in self.sampling)


@dataclass(frozen=True)
class Jpeg:
    """Pixels that a JPEG is decoded to, or whose memory its decoder needs, if those are more.

    `end` is the position of the end mark of its only scan. It is None where there are more scans.
    """

    num_pixels: int
    end: int | None

    def without_end(self, data: bytes) -> bytes:
        """Return a JPEG of one scan whose end mark has become bits that no image needs. Return others as they are.

        A decoder that has too little fills an image up with grey at an end mark. Without one it asks for more.
        """
        return data if self.end is None else data[: self.end] + _NO_CODE


def read_jpeg(data: bytes) -> Jpeg:
    """Walk over the segments of a JPEG.

    Raises:
        InvalidImage: The file is cut short or out of proportion.
        UnsupportedImageFormat: The JPEG is neither baseline nor progressive, or has other than 8 bits.
        ImageTooLarge: The file has more than `MAX_JPEG_PIXELS`.
    """
    frame, end = _walk(data)
    least = min(frame.width, frame.height) // ENOUGH
    scale = next((scale for scale in _SCALES if least >= scale), 1)  # as `Image.draft` chooses it
    pixels = -(-frame.width // scale) * -(-frame.height // scale)
    if not frame.keeps_coefficients:
        return Jpeg(pixels, end)
    coefficient_bytes = _COEFFICIENT_BYTES * frame.pixels * frame.num_blocks // frame.most_sampling
    return Jpeg(max(pixels, coefficient_bytes // PIXEL_BYTES), None)


def _walk(data: bytes) -> tuple[_Frame, int]:
    """Return the frame and the position of its end mark."""
    frame = _Frame()
    position, fill_bytes, note_bytes = 2, 0, 0
    for _ in range(_MAX_MARKERS):
        found = _MARKER.search(data, position)
        if found is None:
            raise cut_short("JPEG")
        start, marker = found.start(), data[found.start() + 1]
        if frame.num_scans == 0:
            fill_bytes += start - position
            if fill_bytes > _MAX_FILL_BYTES:
                raise out_of_proportion("JPEG", "filling")
        if marker == 0xD9:  # end of image
            if frame.num_scans and frame.is_whole():
                return frame, start
            raise cut_short("JPEG")
        position = start + 2
        if marker not in _SEGMENTS:
            continue
        (length,) = struct.unpack_from(">H", data, position)
        begin, position = position + 2, position + length
        if marker in _FRAMES:
            frame.read_header(marker, data[begin:position])
            if frame.pixels > MAX_JPEG_PIXELS:
                raise ImageTooLarge(
                    f"The JPEG image has {in_words(frame.pixels)} pixels. Up to {in_words(MAX_JPEG_PIXELS)} "
                    "are taken. Send a smaller copy."
                )
        elif marker == 0xDA:
            frame.read_scan(data[begin:position])
            work = frame.num_scans * frame.pixels
            is_costly = work > (_MAX_WORK if frame.num_scans > _USUAL_SCANS else _MAX_USUAL_WORK)
            if is_costly or frame.num_scans > _MAX_SCANS:
                raise out_of_proportion("JPEG", "scans")
        elif marker in (0xDB, 0xED) or (marker == 0xE1 and data[begin : begin + 4] == b"Exif"):
            note_bytes += length
            if note_bytes > _MAX_NOTES:
                raise out_of_proportion("JPEG", "notes")
    raise out_of_proportion("JPEG", "segments")
