"""Processes that decode what would hold up all threads of this one: large pictures that are no JPEGs.

To hand over such a picture, and to free it, Pillow holds Python's lock for 10 to 100 ms, in which the event loop
answers nobody; a process of its own has a lock of its own. Its memory goes when it ends, a decoder that crashes takes
only its picture along, and one that is too late is ended. JPEGs are made small while they are decoded, and stay here.
"""

import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from service.errors import DeadlineExceeded, ImageError, ImageTooLarge, InvalidImage
from service.imaging.decode import decode_square
from service.imaging.pixels import ImageLimits, Pixels, ResizeRule
from service.inference.threads import DECODERS, step_back

_COMMAND = (sys.executable, "-P", "-m", "service.inference.decode_process")  # -P: never from the current folder
_IDLE_S = 60.0  # one that has had nothing to do for so long ends

_REQUEST = struct.Struct("<5Q")  # bytes of the file, which follows, and the fields of limits and rule
_ANSWER = struct.Struct("<2Q")  # which of `_OUTCOMES`, and the bytes of what follows: pixels, or a sentence
_OUTCOMES: tuple[type[ImageError] | None, ...] = (None, InvalidImage, ImageTooLarge)
_MAX_SENTENCE_BYTES = 1_000


class DecodeProcesses:
    """As many as threads need at the same time, each started (0.2 s) when none is idle.

    Args:
        limits: what one image may ask of the machine.
    """

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        self._running: set[subprocess.Popen[bytes]] = set()
        self._idle: list[subprocess.Popen[bytes]] = []  # the last to be used is the first to be used again
        self._is_closed = False

    def decode_square(self, data: bytes, rule: ResizeRule, deadline: float) -> Pixels:
        """As `imaging.decode.decode_square`, bit for bit; the thread that calls waits without holding Python's lock.

        Args:
            data: the image file.
            rule: the square that is wanted.
            deadline: on the clock of `time.monotonic` (seconds); what is not done by then is given up.

        Raises:
            ImageError: the image is at fault, or has brought its process down.
            DeadlineExceeded: the deadline passed.
        """
        while time.monotonic() < deadline:
            try:
                process, is_new = self._take()
            except OSError:  # no process can be had: better here than not at all
                return decode_square(data, rule, self._limits)
            too_late = threading.Timer(deadline - time.monotonic(), process.kill)
            too_late.daemon = True
            too_late.start()
            try:
                error, answer = _ask(process, data, rule, self._limits)
            except (EOFError, OSError):  # it has ended: in vain for this picture, unless it had been idle too long
                self._end(process)
                if (is_new or self._is_closed) and time.monotonic() < deadline:
                    raise InvalidImage(
                        "The picture brings the decoder down: send a smaller copy, or one saved as JPEG."
                    ) from None
                continue
            finally:
                too_late.cancel()
            self._idle.append(process)
            if error is not None:
                raise error(answer.decode(errors="replace"))
            return np.frombuffer(answer, np.uint8).reshape(rule.image_size, rule.image_size, 3)
        raise DeadlineExceeded("The deadline passed before the picture was decoded: allow more time.")

    def close(self) -> None:
        """End them all, whatever they are at."""
        self._is_closed = True
        for process in tuple(self._running):
            process.kill()
        while self._idle:
            self._end(self._idle.pop())

    def _take(self) -> tuple[subprocess.Popen[bytes], bool]:
        """An idle one, or a new one, and whether it is that. Raises OSError."""
        with suppress(IndexError):
            return self._idle.pop(), False
        process = subprocess.Popen(  # noqa: S603 - of our own words
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
            process_group=0,  # Ctrl-C is for this one, which then closes its end of the pipe
        )
        self._running.add(process)
        return process, True

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        self._running.discard(process)
        process.kill()
        with suppress(OSError), process:  # waits for it, and closes the pipes, in one of which something may be left
            pass


def _ask(
    process: subprocess.Popen[bytes], data: bytes, rule: ResizeRule, limits: ImageLimits
) -> tuple[type[ImageError] | None, bytes]:
    """Raises EOFError or OSError when it has ended, or answers what it should not."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(
        _REQUEST.pack(len(data), limits.max_image_bytes, limits.max_image_pixels, rule.image_size, rule.shorter_side)
    )
    process.stdin.write(data)
    process.stdin.flush()
    outcome, num_bytes = _ANSWER.unpack(_read(process.stdout, _ANSWER.size))
    if outcome == 0 and num_bytes != rule.image_size**2 * 3:
        raise EOFError
    if outcome >= len(_OUTCOMES) or (outcome > 0 and num_bytes > _MAX_SENTENCE_BYTES):
        raise EOFError
    return _OUTCOMES[outcome], _read(process.stdout, num_bytes)


def _read(stream: IO[bytes], num_bytes: int) -> bytes:
    """All of them, or EOFError."""
    data = stream.read(num_bytes)
    if len(data) < num_bytes:
        raise EOFError
    return data


def main() -> None:
    """The process: decode what comes in, until nobody is there to ask, or nobody has asked for a minute."""
    for number in (signal.SIGINT, signal.SIGTERM):  # some supervisors send them to all; who drains still decodes
        signal.signal(number, signal.SIG_IGN)
    step_back(DECODERS)
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    with suppress(EOFError, BrokenPipeError):
        while sys.platform == "win32" or select.select([asked], [], [], _IDLE_S)[0]:
            num_bytes, *numbers = _REQUEST.unpack(_read(asked, _REQUEST.size))
            outcome, body = _decode(_read(asked, num_bytes), ImageLimits(*numbers[:2]), ResizeRule(*numbers[2:]))
            answers.write(_ANSWER.pack(outcome, len(body)) + body)
            answers.flush()


def _decode(data: bytes, limits: ImageLimits, rule: ResizeRule) -> tuple[int, bytes]:
    try:
        return 0, decode_square(data, rule, limits).tobytes()
    except ImageError as error:
        outcome = _OUTCOMES.index(type(error)) if type(error) in _OUTCOMES else _OUTCOMES.index(InvalidImage)
        return outcome, str(error).encode()[:_MAX_SENTENCE_BYTES]


if __name__ == "__main__":
    main()
