"""What the service and a decoding process say to each other: one request, one answer, over two pipes.

The form of an answer is checked. A decoder that an image has taken over can say what pixels that has, and no more.
"""

import os
import select
import signal
import struct
import subprocess
import time
from contextlib import suppress
from typing import IO

from service.errors import (
    FlowersError,
    ImageBytesTooLarge,
    ImageTooLarge,
    InvalidImage,
    MissingImage,
    OutOfMemory,
    UnsupportedImageFormat,
)
from service.imaging.pixels import ImageLimits, ResizeRule

READY = b"\n"
REQUEST = struct.Struct("<d5Q")
"""Seconds that it may take, bytes of the file that follows, fields of limits and rule."""
ANSWER = struct.Struct("<2Q")
"""Which of `OUTCOMES`, and the bytes of what follows: pixels, or a sentence."""
OUTCOMES: tuple[type[FlowersError] | None, ...] = (
    None, MissingImage, ImageBytesTooLarge, ImageTooLarge, UnsupportedImageFormat, InvalidImage, OutOfMemory,
)  # fmt: skip
"""None: the image was decoded."""
SHORT = ANSWER.pack(len(OUTCOMES), 0)
"""A note before the answer. The process cannot have the memory that the image may need."""
MAX_SENTENCE_BYTES = 1_000
EXIT_OUT_OF_MEMORY = 75
"""Exit code of a process that found no memory for the request itself (EX_TEMPFAIL of sysexits.h)."""
_ENDS_IN_S = 1.0  # a process that has closed its pipe


class DecoderEnded(Exception):
    """The process has ended, or answered nonsense. `is_starved`: for want of memory, as far as can be told."""

    def __init__(self, *, is_starved: bool = False) -> None:
        self.is_starved = is_starved


def ask(
    process: subprocess.Popen[bytes], left_s: float, data: bytes, rule: ResizeRule, limits: ImageLimits
) -> tuple[int, bytes]:
    """Which of `OUTCOMES`, and the answer. Raises `DecoderEnded` when it has ended, or answers nonsense."""
    numbers = (limits.max_image_bytes, limits.max_image_pixels, rule.image_size, rule.shorter_side)
    is_short = False
    ends_at = time.monotonic() + left_s + 1  # it ends itself in time, unless it is stopped or taken over
    try:
        send(process, REQUEST.pack(left_s, len(data), *numbers), ends_at)
        send(process, data, ends_at)
        answer = receive(process, ANSWER.size, ends_at)
        if answer == SHORT:
            is_short = True
            answer = receive(process, ANSWER.size, ends_at)
        outcome, num_bytes = ANSWER.unpack(answer)
        if outcome >= len(OUTCOMES):
            raise DecoderEnded
        if num_bytes > MAX_SENTENCE_BYTES if outcome else num_bytes != rule.image_size**2 * 3:
            raise DecoderEnded
        return outcome, receive(process, num_bytes, ends_at)
    except TimeoutError:
        raise DecoderEnded from None
    except (EOFError, OSError):
        raise DecoderEnded(is_starved=is_short or _ends_for_want_of_memory(process)) from None


def _ends_for_want_of_memory(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process that has closed its pipe does so by itself, or by the kernel's choice."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(_ENDS_IN_S) in (-signal.SIGKILL, EXIT_OUT_OF_MEMORY)
    return False


def send(process: subprocess.Popen[bytes], data: bytes, ends_at: float) -> None:
    """Write to its standard input.

    No thread watches the time. To start one may never end where memory is short (CPython, `Thread.start`).

    Args:
        process: with a pipe as standard input.
        data: what it is to read.
        ends_at: on the clock of `time.monotonic` (seconds).

    Raises:
        TimeoutError: it has not taken them by `ends_at`.
        OSError: it has ended.
    """
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    left = memoryview(data)
    while left:
        _wait(process.stdin, select.POLLOUT, ends_at)
        left = left[os.write(process.stdin.fileno(), left) :]


def receive(process: subprocess.Popen[bytes], num_bytes: int, ends_at: float) -> bytes:
    """Read so many bytes of its standard output. Raises as `send`, and `EOFError` when there are fewer."""
    assert process.stdout is not None
    pieces = []
    while num_bytes:
        _wait(process.stdout, select.POLLIN, ends_at)
        pieces.append(os.read(process.stdout.fileno(), num_bytes))
        if not pieces[-1]:
            raise EOFError
        num_bytes -= len(pieces[-1])
    return b"".join(pieces)


def _wait(pipe: IO[bytes], for_what: int, ends_at: float) -> None:
    poll = select.poll()
    poll.register(pipe, for_what)
    if not poll.poll(max(0.0, ends_at - time.monotonic()) * 1000):
        raise TimeoutError


def read_all(stream: IO[bytes] | None, num_bytes: int) -> bytes:
    """All of them, or EOFError."""
    assert stream is not None
    data = stream.read(num_bytes)
    if len(data) < num_bytes:
        raise EOFError
    return data
