"""Processes that decode large pictures, which would hold up all threads of this one, and those of unknown size.

To hand over a picture of many pixels, and to free it, Pillow holds Python's lock for 10 to 100 ms, in which the event
loop answers nobody; a process of its own has a lock of its own. Its memory is bounded (on Linux) and goes when it ends,
a decoder that crashes takes only its picture along, and one that is too late is ended.
"""

import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np
import structlog
from PIL import AvifImagePlugin

from service.errors import DeadlineExceeded, ImageError, InvalidImage, OutOfMemory, QueueFull, is_out_of_memory
from service.imaging.decode import Undecoded, decode_square
from service.imaging.pixels import PIXEL_BYTES, ImageLimits, Pixels, ResizeRule
from service.inference.decode_protocol import (
    ANSWER,
    EXIT_OUT_OF_MEMORY,
    MAX_SENTENCE_BYTES,
    OUTCOMES,
    READY,
    REQUEST,
    SHORT,
    DecoderEnded,
    ask,
    read_all,
    receive,
)
from service.machine import can_allocate

_COMMAND = (sys.executable, "-P", "-m", "service.inference.decode_process")  # -P: never from the current folder
_START_S = 30.0  # more than a start takes on a busy machine
_IDLE_S = 60.0  # one that has had nothing to do for so long ends

_MARGIN_BYTES = 64 * 1024 * 1024  # beside pixels and file: stacks, tables
PIXELS_BESIDE = 8_000_000
"""What a process takes beside its picture, in pixels' memory (140 MB): itself, a file of 20 MiB twice, the margin."""

_TOO_LATE = "The deadline passed before the picture was decoded: allow more time."
_NO_MEMORY = "There is not enough memory to decode the picture. The picture is not at fault. Send it again later."
_WANTS_MORE = (
    "The picture cannot be read: it takes more memory than its pixels need; send a smaller copy, or one saved as JPEG."
)

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class DecodeProcesses:
    """As many as threads need at the same time, each started when none is idle: 0.2 s, and more under load.

    One that has ended is cleared away when the next is wanted.

    Args:
        limits: what one image may ask of the machine.
    """

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._idle: list[subprocess.Popen[bytes]] = []  # the last to be used is the first to be used again
        self._is_closed = False

    def decode_square(self, data: bytes, rule: ResizeRule, deadline: float) -> Pixels:
        """As `imaging.decode.decode_square`, bit for bit; the thread that calls waits without holding Python's lock.

        Args:
            data: the image file.
            rule: the square that is wanted.
            deadline: on the clock of `time.monotonic` (seconds); what is not done by then is given up.

        Returns:
            uint8, shape (image_size, image_size, 3), RGB, 0-255, read-only.

        Raises:
            ImageError: the image is at fault, or has brought its process down.
            OutOfMemory: there is not enough memory for the image, or for a process that it needs.
            QueueFull: no process can be had for another reason, and it may not be decoded without one.
            DeadlineExceeded: the deadline passed.
        """
        self._check_time(deadline)
        if (process := self._take_idle()) is not None:
            with suppress(DecoderEnded):  # it had just been idle for too long, or not: once more, with a new one
                return self._decode_in(process, data, rule, deadline)
        try:
            process = self._start()
        except (EOFError, OSError, MemoryError) as error:
            self._check_time(deadline)
            log.warning("no process for a picture", reason=repr(error))
            try:
                return decode_square(data, rule, self._limits, _leave_unbounded)  # better here than not at all
            except Undecoded:
                if is_out_of_memory(error) or not can_allocate(_MARGIN_BYTES):
                    raise OutOfMemory(_NO_MEMORY) from error
                raise QueueFull(
                    "No process can be had for a picture of this kind: send it again later, or as JPEG or PNG."
                ) from None
        try:
            return self._decode_in(process, data, rule, deadline)
        except DecoderEnded as ended:
            event = "decoder out of memory" if ended.is_starved else "a picture has brought its decoder down"
            log.warning(event, num_bytes=len(data), exit_code=process.returncode)
            if ended.is_starved:
                raise OutOfMemory(_NO_MEMORY) from None
            raise InvalidImage(
                "The picture brings the decoder down: send a smaller copy, or one saved as JPEG."
            ) from None

    def close(self) -> None:
        """End them all, whatever they are at."""
        with self._lock:
            self._is_closed = True
            for process in self._running:
                process.kill()
        self._take_idle()

    def _check_time(self, deadline: float) -> None:
        if self._is_closed or time.monotonic() >= deadline:
            raise DeadlineExceeded(_TOO_LATE)

    def _decode_in(self, process: subprocess.Popen[bytes], data: bytes, rule: ResizeRule, deadline: float) -> Pixels:
        """`decode_square` in one process that is ready. Raises `DecoderEnded`, too."""
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            self._give_back(process)  # it took long to start, and the next one need not wait for it
            raise DeadlineExceeded(_TOO_LATE)
        try:
            outcome, answer = ask(process, left_s, data, rule, self._limits)
        except BaseException as error:
            self._end(process)
            if isinstance(error, DecoderEnded):
                self._check_time(deadline)
            raise
        self._give_back(process)
        if (error_type := OUTCOMES[outcome]) is not None:
            raise error_type(answer.decode(errors="replace"))
        return np.frombuffer(answer, np.uint8).reshape(rule.image_size, rule.image_size, 3)

    def _take_idle(self) -> subprocess.Popen[bytes] | None:
        """None where there is none; those that have ended, or shall by now, are cleared away."""
        with self._lock:
            ended = [process for process in self._idle if process.poll() is not None or self._is_closed]
            self._idle = [process for process in self._idle if process not in ended]
            taken = self._idle.pop() if self._idle else None
        for process in ended:
            self._end(process)
        return taken

    def _start(self) -> subprocess.Popen[bytes]:
        """One that is ready. Raises EOFError or OSError where none can be had."""
        here = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        others = {name: value for name, value in os.environ.items() if not name.startswith("FLOWERS_")}  # no keys
        process = subprocess.Popen(  # noqa: S603 - of our own words
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**others, "PYTHONPATH": here, "OPENBLAS_NUM_THREADS": "1"},  # else NumPy starts a thread per core
            process_group=0,  # Ctrl-C is for this one, which then closes its end of the pipe
        )
        with self._lock:
            self._running.add(process)
            if self._is_closed:
                process.kill()
        try:
            receive(process, len(READY), time.monotonic() + _START_S)
        except BaseException:
            self._end(process)
            raise
        return process

    def _give_back(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._idle.append(process)
            is_closed = self._is_closed
        if is_closed:
            self._take_idle()

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._running.discard(process)
        process.kill()
        with suppress(OSError), process:  # waits for it, and closes the pipes, in one of which something may be left
            pass


def main() -> None:
    """The process: decode what comes in, until nobody is there to ask, or nobody has asked for a minute.

    It has the niceness of the thread that started it.
    """
    # Some supervisors send them to all processes. A service that drains still decodes.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # else one for each core, whose stacks count as memory taken
    own_bytes = _data_bytes()
    with suppress(EOFError, BrokenPipeError), _exit_for_want_of_memory():
        _write(answers, READY)
        with Path(os.devnull).open("wb") as nowhere:
            # What a library prints is no answer, and may be a line for each row.
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        while select.select([asked], [], [], _IDLE_S)[0]:
            left_s, num_bytes, *numbers = REQUEST.unpack(read_all(asked, REQUEST.size))
            signal.setitimer(signal.ITIMER_REAL, left_s)  # nobody handles it: it ends the process, whatever that is at
            _bound_memory(None)
            data = read_all(asked, num_bytes)
            limits, rule = ImageLimits(*numbers[:2]), ResizeRule(*numbers[2:])
            outcome, body = _decode(data, limits, rule, own_bytes, lambda: _write(answers, SHORT))
            signal.setitimer(signal.ITIMER_REAL, 0)
            _write(answers, ANSWER.pack(outcome, len(body)) + body)


def _decode(
    data: bytes, limits: ImageLimits, rule: ResizeRule, own_bytes: int | None, note_short: Callable[[], None]
) -> tuple[int, bytes]:
    """Which of `OUTCOMES`, and the answer.

    The process gets what a picture may need. One that wants more is at fault. Where the process cannot have as much, no
    failure is the picture's.
    """
    has_memory: bool | None = None  # None: the decoder was not reached

    def bound_memory(num_pixels: int, _: int | None) -> None:
        nonlocal has_memory
        if own_bytes is None:
            return
        most = own_bytes + 2 * len(data) + PIXEL_BYTES * num_pixels + _MARGIN_BYTES
        has_memory = can_allocate(most - (_data_bytes() or 0))
        if not has_memory:
            note_short()
        _bound_memory(most)

    try:
        return 0, decode_square(data, rule, limits, bound_memory).tobytes()
    except (ImageError, OutOfMemory, MemoryError) as raised:
        error: Exception = raised
    if has_memory is False and isinstance(error, InvalidImage | MemoryError):
        error = OutOfMemory(_NO_MEMORY)
    elif isinstance(error, OutOfMemory | MemoryError):
        error = InvalidImage(_WANTS_MORE) if has_memory else OutOfMemory(_NO_MEMORY)
    return OUTCOMES.index(type(error)), str(error).encode()[:MAX_SENTENCE_BYTES]


def _write(answers: IO[bytes], answer: bytes) -> None:
    answers.write(answer)
    answers.flush()


@contextmanager
def _exit_for_want_of_memory() -> Iterator[None]:
    """Else the exit code would be that of any error."""
    try:
        yield
    except MemoryError:
        os._exit(EXIT_OUT_OF_MEMORY)


def _data_bytes() -> int | None:
    """What counts against RLIMIT_DATA at this moment; None where that cannot be told (not on Linux)."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    return None


def _bound_memory(num_bytes: int | None) -> None:
    """Beyond it a decoder finds no memory, and says that it could not read the picture; None: as much as may be."""
    _, highest = resource.getrlimit(resource.RLIMIT_DATA)
    if num_bytes is None or resource.RLIM_INFINITY != highest < num_bytes:
        num_bytes = highest
    resource.setrlimit(resource.RLIMIT_DATA, (num_bytes, highest))


def _leave_unbounded(_: int, num_decoded: int | None) -> None:
    if num_decoded is None:
        raise Undecoded


if __name__ == "__main__":
    main()
