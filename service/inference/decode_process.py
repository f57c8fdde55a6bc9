"""A process that decodes large images, and those whose memory no header bounds.

Pillow holds Python's lock for 10 to 100 ms to hand over an image of many pixels, and to free it. A process has a lock
of its own. On Linux its memory is bounded. The form of its answers is checked, and nothing of them is unpickled. A
decoder that an image has taken over can say what pixels that has, and no more.
"""

import os
import pickle
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import AvifImagePlugin

from service.errors import FlowersError, ImageError, ImageTooLarge, InvalidImage, OutOfMemory, UnsupportedImageFormat
from service.imaging.decode import decode_square
from service.imaging.inspection import Inspection
from service.imaging.limits import PIXEL_BYTES, ResizeRule
from service.imaging.pixels import Pixels
from service.machine import can_allocate, data_bytes

COMMAND = (sys.executable, "-P", "-m", "service.inference.decode_process")  # -P: nothing from the current folder
MARGIN_BYTES = 64 * 1024 * 1024  # that a process may take beside pixels and file: stacks, tables
NO_MEMORY = "There is not enough memory to decode the image. The image is not at fault. Send it again later."
_WANTS_MORE = (
    "The image takes more memory than its pixels need. It cannot be read. Send a smaller copy, or save it as JPEG."
)
_ENDS_IN_S = 1.0  # a process that has closed its socket
_GRACE_S = 1.0  # after the deadline, at which the service ends the process
_LEAST_S = 0.001  # 0 would mean not to wait at all

_READY = b"\n"
_REQUEST = struct.Struct("<d2Q")  # seconds that it may take, bytes of inspection and rule, bytes of the file
_ANSWER = struct.Struct("<2Q")  # 0 or one of `_ERRORS`, bytes of pixels or of a sentence
_ERRORS: tuple[type[FlowersError], ...] = (ImageTooLarge, UnsupportedImageFormat, InvalidImage, OutOfMemory)
_HAS_MEMORY, _IS_SHORT = b"+", b"-"  # before an answer: whether the process could have what the image may need
_MAX_SENTENCE_BYTES = 1_000
_EXIT_OUT_OF_MEMORY = 75  # EX_TEMPFAIL of sysexits.h: there was no memory for the request itself


@dataclass(frozen=True)
class Job:
    """One image file to decode. The deadline is on the clock of `time.monotonic`, in seconds."""

    data: bytes
    inspection: Inspection
    rule: ResizeRule
    deadline: float


class DecoderEnded(Exception):
    """The process has ended, or its answer has no valid form. `is_starved` tells that memory was short."""

    def __init__(self, *, is_starved: bool = False) -> None:
        self.is_starved = is_starved


class DecodeProcess:
    """One process, from the service's side. One thread at a time uses it.

    `command` starts it. Raises `OSError`, `EOFError` where it takes no request within `start_timeout_s`.
    """

    def __init__(self, command: Sequence[str] = COMMAND, start_timeout_s: float = 30.0) -> None:
        paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        others = {name: value for name, value in os.environ.items() if not name.startswith("FLOWERS_")}  # no keys
        self._socket, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - of our own words
                    command,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,  # what a library prints is no answer, and may be a line for each row
                    stderr=subprocess.DEVNULL,
                    env={**others, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"},  # else a thread for each core
                    process_group=0,  # Ctrl-C is for the service, which then closes its end of the socket
                )
            except BaseException:
                self._socket.close()
                raise
        try:
            self._receive(len(_READY), time.monotonic() + start_timeout_s)
        except BaseException:
            self.close()
            raise

    @property
    def exit_code(self) -> int | None:
        """The negative number of the signal that ended it, or what it returned. None while it runs."""
        return self._process.poll()

    def ask(self, job: Job) -> Pixels | FlowersError:
        """Decode one image.

        The socket watches the time. To start a thread for that may never end without memory (CPython, `Thread.start`).

        Returns:
            The square of `imaging.decode.decode_square`, bit for bit, or the error that it raised there.

        Raises:
            DecoderEnded: The process has ended, or its answer has no valid form.
            TimeoutError: The deadline passed. After this or any other error the process must be closed.
        """
        how, size, is_short = pickle.dumps((job.inspection, job.rule)), job.rule.image_size, False
        try:
            request = _REQUEST.pack(job.deadline - time.monotonic(), len(how), len(job.data)) + how
            for part in (request, job.data):
                self._bound_wait(job.deadline)
                self._socket.sendall(part)
            is_short = self._receive(1, job.deadline) == _IS_SHORT
            outcome, num_bytes = _ANSWER.unpack(self._receive(_ANSWER.size, job.deadline))
            is_wrong = num_bytes > _MAX_SENTENCE_BYTES if outcome else num_bytes != size**2 * 3
            if is_wrong or outcome > len(_ERRORS):
                raise DecoderEnded
            answer = self._receive(num_bytes, job.deadline)
        except TimeoutError:
            raise
        except (EOFError, OSError):
            raise DecoderEnded(is_starved=is_short or self._ends_starved()) from None
        if outcome:
            error: FlowersError = _ERRORS[outcome - 1](answer.decode(errors="replace"))
            return error
        square: Pixels = np.frombuffer(answer, np.uint8).reshape(size, size, 3)
        return square

    def kill(self) -> None:
        """End it, whatever it is at. Any thread may call this."""
        self._process.kill()

    def close(self) -> None:
        """End it, and wait until it is gone."""
        self.kill()
        self._process.wait()
        self._socket.close()

    def _bound_wait(self, ends_at: float) -> None:
        self._socket.settimeout(max(_LEAST_S, ends_at - time.monotonic()))

    def _receive(self, num_bytes: int, ends_at: float) -> bytes:
        pieces = []
        while num_bytes:
            self._bound_wait(ends_at)
            pieces.append(self._socket.recv(num_bytes))
            if not pieces[-1]:
                raise EOFError
            num_bytes -= len(pieces[-1])
        return b"".join(pieces)

    def _ends_starved(self) -> bool:
        """Return whether a process that has closed its socket ends by the kernel's choice, or for want of memory."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(_ENDS_IN_S) in (-signal.SIGKILL, _EXIT_OUT_OF_MEMORY)
        return False


def main(*, idle_s: float = 60.0, margin_bytes: int = MARGIN_BYTES) -> None:
    """Decode what comes in, with the niceness of the thread that started the process.

    It ends with the service, or without a request for `idle_s`.
    """
    # Some supervisors send them to all processes. A service that drains still decodes.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # else one for each core, whose stacks count as memory taken
    most_bytes = data_bytes() + margin_bytes
    service = socket.socket(fileno=sys.stdin.fileno())
    requests = service.makefile("rb")
    try:
        service.sendall(_READY)
        while select.select([service], [], [], idle_s)[0]:
            left_s, how_bytes, num_bytes = _REQUEST.unpack(_read(requests, _REQUEST.size))
            signal.setitimer(signal.ITIMER_REAL, left_s + _GRACE_S)  # a service that was killed does not end it
            inspection, rule = pickle.loads(_read(requests, how_bytes))  # noqa: S301 - from the service
            has_memory = bound_memory(most_bytes + 2 * num_bytes + PIXEL_BYTES * inspection.max_pixels)
            data = _read(requests, num_bytes)
            service.sendall(_HAS_MEMORY if has_memory else _IS_SHORT)
            outcome, body = _decode(data, inspection, rule, has_memory=has_memory)
            signal.setitimer(signal.ITIMER_REAL, 0)
            service.sendall(_ANSWER.pack(outcome, len(body)) + body)
    except (EOFError, ConnectionError):
        return
    except MemoryError:
        os._exit(_EXIT_OUT_OF_MEMORY)


def _decode(data: bytes, inspection: Inspection, rule: ResizeRule, *, has_memory: bool) -> tuple[int, bytes]:
    """Return 0 and pixels, or the number of one of `_ERRORS` and its sentence.

    An image that wants more memory than the process has is at fault. Without `has_memory` no failure is the image's.
    """
    try:
        return 0, decode_square(data, rule, inspection, may_crash=True).tobytes()
    except (ImageError, OutOfMemory, MemoryError) as raised:
        error: Exception = raised
    if not has_memory and isinstance(error, InvalidImage | OutOfMemory | MemoryError):
        error = OutOfMemory(NO_MEMORY)
    elif isinstance(error, OutOfMemory | MemoryError):
        error = InvalidImage(_WANTS_MORE)
    return 1 + _ERRORS.index(type(error)), str(error).encode()[:_MAX_SENTENCE_BYTES]


def _read(requests: IO[bytes], num_bytes: int) -> bytes:
    data = requests.read(num_bytes)
    if len(data) < num_bytes:
        raise EOFError
    return data


def bound_memory(num_bytes: int) -> bool:
    """Bound the process's memory, and return whether it can have as much.

    Beyond the bound a decoder finds no memory, and says that it could not read the image.
    """
    own_bytes, (_, highest) = data_bytes(), resource.getrlimit(resource.RLIMIT_DATA)
    if own_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (highest if 0 <= highest < num_bytes else num_bytes, highest))
    return can_allocate(num_bytes - own_bytes)


if __name__ == "__main__":
    main()
