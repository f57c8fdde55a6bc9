"""Photographs whose pixels lie in a file, and selections of photographs that are read when they are asked for."""

import os
import weakref
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from io import BufferedReader
from itertools import accumulate
from pathlib import Path
from typing import overload

import numpy as np

from service.errors import TrainingError
from service.imaging.pixels import Pixels

Photographs = Sequence[Pixels] | Pixels
"""Decoded photographs, each uint8 (height, width, 3)."""

Size = tuple[int, int]
"""Height and width in pixels."""

_CHECKSUM_BYTES = 4


def record_bytes(size: Size) -> int:
    """Return the bytes of a photograph's record in the file."""
    return 3 * size[0] * size[1] + _CHECKSUM_BYTES


def to_record(pixels: Pixels) -> bytes:
    """Return the record of a photograph: its pixels, row by row, and their CRC-32."""
    data = pixels.tobytes()
    return data + zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "little")


def is_sound(record: bytes) -> bool:
    """Return whether the pixels of a record have its checksum."""
    checksum = int.from_bytes(record[-_CHECKSUM_BYTES:], "little")
    return len(record) > _CHECKSUM_BYTES and zlib.crc32(memoryview(record)[:-_CHECKSUM_BYTES]) == checksum


class StoredPixels(Sequence[Pixels]):
    """Photographs of these `sizes`, record by record in a file.

    Each photograph is read when it is asked for, into memory of its own. It is uint8 (height, width, 3), read-only. The
    page cache holds what fits, and the process holds nothing. Any thread may read. The file is open, and its lock held,
    as long as this object lives. A photograph that is damaged when it is first read raises `TrainingError`.
    """

    def __init__(self, file: BufferedReader, sizes: Sequence[Size]) -> None:
        self._file, self._sizes = file, sizes
        self._was_sound = bytearray(len(sizes))  # the checksum of a photograph takes a tenth of the time of a view
        weakref.finalize(self, file.close)
        self._offsets = list(accumulate(map(record_bytes, sizes), initial=0))

    def __len__(self) -> int:
        """Return the number of photographs."""
        return len(self._sizes)

    @overload
    def __getitem__(self, place: int) -> Pixels: ...

    @overload
    def __getitem__(self, place: slice) -> list[Pixels]: ...

    def __getitem__(self, place: int | slice) -> Pixels | list[Pixels]:
        """Read one photograph, or those of a slice."""
        places = range(len(self))[place]
        return [self._read(one) for one in places] if isinstance(places, range) else self._read(places)

    def _read(self, place: int) -> Pixels:
        size, offset = self._offsets[place + 1] - self._offsets[place], self._offsets[place]
        path = Path(self._file.name)
        try:
            record = os.pread(self._file.fileno(), size, offset)
        except OSError as error:
            raise TrainingError(f"{path} cannot be read ({error.strerror}). {_remedy(path)}") from error
        if len(record) != size or not (self._was_sound[place] or is_sound(record)):
            raise TrainingError(f"{path} is damaged at photograph {place + 1:,} of {len(self):,}. {_remedy(path)}")
        self._was_sound[place] = True
        return np.frombuffer(record, np.uint8, size - _CHECKSUM_BYTES).reshape(*self._sizes[place], 3)


class Selection(Sequence[Pixels]):
    """Photographs of one or more sequences. Each is read when it is asked for.

    `places` number the photographs of all `sources`, one source after another. None takes all in this order. A place
    may occur twice.
    """

    def __init__(self, sources: Sequence[Photographs], places: Sequence[int] | None = None) -> None:
        self.sources = sources
        self._ends = list(accumulate(map(len, sources)))
        self._places = range(self._ends[-1]) if places is None else places

    def __len__(self) -> int:
        """Return the number of photographs."""
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> Pixels: ...

    @overload
    def __getitem__(self, place: slice) -> list[Pixels]: ...

    def __getitem__(self, place: int | slice) -> Pixels | list[Pixels]:
        """Return one photograph, or those of a slice."""
        places = self._places[place]
        return self._find(places) if isinstance(places, int) else [self._find(one) for one in places]

    def _find(self, place: int) -> Pixels:
        number = bisect_right(self._ends, place)
        return self.sources[number][place - (self._ends[number - 1] if number else 0)]


def is_stored(photographs: Photographs) -> bool:
    """Return whether pixels of some of these photographs lie in a file."""
    if isinstance(photographs, Selection):
        return any(map(is_stored, photographs.sources))
    return isinstance(photographs, StoredPixels)


def _remedy(path: Path) -> str:
    return f"Delete {path}, and give the command again."
