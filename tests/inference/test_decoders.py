"""Which images a thread decodes and which a process, how many at a time, and what comes where there is no process."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from structlog.testing import capture_logs
from support.drawing import draw_photograph, encode
from support.handmade import png
from support.processes import children, wait_until

from service.errors import DeadlineExceeded, ImageTooLarge, InvalidImage, OutOfMemory, QueueFull
from service.imaging.decode import decode_square
from service.imaging.inspection import Inspection, inspect
from service.imaging.limits import ImageLimits, ResizeRule
from service.imaging.pixels import Pixels
from service.inference.decode_process import COMMAND, DecodeProcess, Job
from service.inference.decoders import DecodeProcesses, Decoders, PixelBudget
from service.inference.usage import Alone, OwnUsage
from service.machine import count_cores

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

RULE = ResizeRule(image_size=64, shorter_side=80)
PHOTO = draw_photograph(0, seed=1)
PNG, AVIF = encode(PHOTO, "PNG"), encode(PHOTO, "AVIF")
OBEYS = """
import os, pathlib, socket, struct, sys, time
service = socket.socket(fileno=0)
service.sendall(b'\\n')
requests = service.makefile('rb')
while head := requests.read(24):
    _, *sizes = struct.unpack('<d2Q', head)
    _, data = map(requests.read, sizes)
    if data.startswith(b'wait for '):
        while not pathlib.Path(data[9:].decode()).exists():
            time.sleep(0.01)
    elif data == b'abort':
        os.abort()
    elif data == b'exit 75':
        os._exit(75)
    service.sendall(b'+' + struct.pack('<2Q', 0, 64 * 64 * 3) + bytes(64 * 64 * 3))
"""
"""A process that does as the file says, and answers in black."""


def soon(seconds: float = 60) -> float:
    return time.monotonic() + seconds


@contextmanager
def pool(command: Sequence[str] = COMMAND, start_timeout_s: float = 60) -> Iterator[DecodeProcesses]:
    assert not children()
    processes = DecodeProcesses(partial(DecodeProcess, command, start_timeout_s))
    try:
        yield processes
    finally:
        processes.close()
    assert not children()


@pytest.fixture
def obedient() -> Iterator[DecodeProcesses]:
    with pool([sys.executable, "-c", OBEYS]) as processes:
        yield processes


def decode(processes: DecodeProcesses, data: bytes) -> Pixels:
    return processes.decode(Job(data, inspect(data, ImageLimits()), RULE, soon()))


def job(data: bytes, deadline: float | None = None) -> Job:
    """An order to the process that obeys."""
    return Job(data, Inspection("AVIF", 0, False, ImageLimits()), RULE, deadline or soon())


def test_pixels_are_those_of_this_process() -> None:
    with pool() as processes:
        for data in (PNG, AVIF):
            np.testing.assert_array_equal(decode(processes, data), decode_square(data, RULE))
        [pid] = children()  # one for all
        with pytest.raises(InvalidImage, match="cannot be read"):
            decode(processes, png(64, 64, b"", deflated=b"no zlib"))
        assert children() == {pid}


def test_threads_have_a_process_each_at_the_same_time(obedient: DecodeProcesses, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as threads:
        answers = [threads.submit(obedient.decode, job(wait_for(tmp_path))) for _ in range(3)]
        wait_until(lambda: len(children()) == 3)
        (tmp_path / "go on").touch()
        assert [answer.result().shape for answer in answers] == [(64, 64, 3)] * 3
    assert len(children()) == 3
    obedient.decode(job(b""))
    assert len(children()) == 3


def wait_for(folder: Path) -> bytes:
    return b"wait for " + bytes(folder / "go on")


def test_an_idle_process_that_has_ended_is_replaced(obedient: DecodeProcesses) -> None:
    obedient.decode(job(b""))
    [old] = children()
    os.kill(old, signal.SIGKILL)
    assert obedient.decode(job(b"")).shape == (64, 64, 3)
    assert len(children() - {old}) == 1


@pytest.mark.parametrize(
    ("end", "kind", "event", "exit_code"),
    [
        (b"abort", InvalidImage, "decoder crashed", -signal.SIGABRT),
        (b"exit 75", OutOfMemory, "decoder starved", 75),
    ],
)
def test_an_image_ends_two_processes_at_the_most(
    obedient: DecodeProcesses, tmp_path: Path, end: bytes, kind: type[Exception], event: str, exit_code: int
) -> None:
    with ThreadPoolExecutor(3) as threads:
        for _ in range(3):
            threads.submit(obedient.decode, job(wait_for(tmp_path)))
        wait_until(lambda: len(children()) == 3)
        (tmp_path / "go on").touch()
    with capture_logs() as logs, pytest.raises(kind):
        obedient.decode(job(end))
    assert len(children()) == 2
    assert [(entry["event"], entry["exit_code"]) for entry in logs] == [(event, exit_code)]


def test_a_crash_says_what_to_do(obedient: DecodeProcesses) -> None:
    with pytest.raises(InvalidImage) as error:
        obedient.decode(job(b"abort"))
    assert str(error.value) == "The image crashes its decoder. Send a smaller copy, or save it as JPEG."


def test_a_late_process_is_ended_at_the_deadline(obedient: DecodeProcesses, tmp_path: Path) -> None:
    with pytest.raises(DeadlineExceeded):
        obedient.decode(job(wait_for(tmp_path), soon(0.3)))
    assert not children()


def test_a_slow_start_is_not_in_vain() -> None:
    """Else requests that wait less long than a start takes would never be answered."""
    with pool([sys.executable, "-c", f"import time; time.sleep(0.3)\n{OBEYS}"]) as processes:
        with pytest.raises(DeadlineExceeded):
            processes.decode(job(b"", soon(0.1)))
        [pid] = children()
        assert processes.decode(job(b"")).shape == (64, 64, 3)
        assert children() == {pid}
        with pytest.raises(DeadlineExceeded):
            processes.decode(job(b"", soon(-1)))


@pytest.mark.parametrize(
    ("command", "start_timeout_s"),
    [
        (["/no/such/program"], 60.0),
        ([sys.executable, "-c", "import no_such_module"], 60.0),
        ([sys.executable, "-c", "import time; time.sleep(60)"], 0.2),
    ],
    ids=["no program", "fails", "never ready"],
)
def test_without_a_process_the_thread_decodes_what_it_may(command: list[str], start_timeout_s: float) -> None:
    with pool(command, start_timeout_s) as processes:
        with capture_logs() as logs:
            np.testing.assert_array_equal(decode(processes, PNG), decode_square(PNG, RULE))
        assert [entry["event"] for entry in logs] == ["decoder start failed"]
        with pytest.raises(QueueFull, match="No process can be had"):
            decode(processes, AVIF)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOMEM, "Cannot allocate memory"), OutOfMemory),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), OutOfMemory),
        (OSError(errno.EMFILE, "Too many open files"), QueueFull),
    ],
)
def test_without_a_process_the_reason_decides(
    monkeypatch: pytest.MonkeyPatch, error: OSError, kind: type[Exception]
) -> None:
    monkeypatch.setattr(subprocess, "Popen", Mock(side_effect=error))
    num_descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with pool() as processes, pytest.raises(kind):
        decode(processes, AVIF)
    assert len(list(Path("/proc/self/fd").iterdir())) == num_descriptors


def test_no_thread_is_started_for_an_image(obedient: DecodeProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython waits for ever for a new thread that finds no memory to begin with."""
    start = Mock()
    monkeypatch.setattr(threading.Thread, "start", start)
    for _ in range(2):
        obedient.decode(job(b""))
    start.assert_not_called()


def test_a_close_ends_all_processes_whatever_they_are_at(obedient: DecodeProcesses, tmp_path: Path) -> None:
    num_descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with ThreadPoolExecutor(2) as threads:
        asking = [threads.submit(obedient.decode, job(wait_for(tmp_path))) for _ in range(2)]
        wait_until(lambda: len(children()) == 2)
        obedient.close()
        for answer in asking:
            with pytest.raises(DeadlineExceeded):
                answer.result()
    assert not children()
    assert len(list(Path("/proc/self/fd").iterdir())) == num_descriptors
    with pytest.raises(DeadlineExceeded):  # a thread that is late
        obedient.decode(job(b""))


class NotingProcesses(DecodeProcesses):
    """Decodes here, and notes the deadlines."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines: list[float] = []

    def decode(self, job: Job) -> Pixels:
        self.deadlines.append(job.deadline)
        return decode_square(job.data, job.rule, job.inspection)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("data", "in_process"),
    [
        (encode(PHOTO), False),
        (encode(Image.new("RGB", (2000, 2000)), "PNG"), False),
        (encode(Image.new("RGB", (2001, 2000)), "PNG"), True),
        (encode(Image.new("RGB", (7000, 7000))), False),
        (encode(Image.new("RGB", (1000, 4001))), True),
        (AVIF, True),
        (encode(PHOTO, "TIFF"), True),
        (encode(PHOTO, "WEBP"), False),
        (encode(PHOTO, "WEBP", lossless=True), True),
        (encode(PHOTO.convert("RGBA").rotate(5), "WEBP"), True),
    ],
    ids=[
        "photograph", "middling", "large", "large JPEG", "narrow JPEG", "AVIF", "TIFF", "WebP", "lossless WebP",
        "WebP with alpha",
    ],
)  # fmt: skip
async def test_large_and_unbounded_images_go_to_a_process(data: bytes, in_process: bool) -> None:
    processes = NotingProcesses()
    decoders = Decoders(ImageLimits(), 1, processes)
    deadline = asyncio.get_running_loop().time() + 60
    for inspection in (inspect(data, ImageLimits()), None):
        square, decode_s = await decoders.decode(data, inspection, RULE, deadline)
        np.testing.assert_array_equal(square, decode_square(data, RULE))
        assert decode_s > 0
    assert processes.deadlines == [deadline] * 2 * in_process
    decoders.close()


@pytest.mark.anyio
async def test_a_thread_inspects_a_file_without_an_inspection() -> None:
    decoders = Decoders(ImageLimits(max_image_pixels=100), 1)
    with pytest.raises(ImageTooLarge):
        await decoders.decode(PNG, None, RULE, soon())
    decoders.close()


@pytest.mark.anyio
@pytest.mark.parametrize(("image_format", "num_pixels"), [("AVIF", 58_000_000), ("TIFF", 8_076_800), ("PNG", 76_800)])
async def test_an_image_holds_its_decoder_s_pixels(
    monkeypatch: pytest.MonkeyPatch, image_format: str, num_pixels: int
) -> None:
    """So that what is decoded at a time stays within the memory that the containers have."""
    held: list[int] = []
    hold = PixelBudget.hold

    @contextmanager
    def noted(budget: PixelBudget, num_pixels: int) -> Iterator[None]:
        held.append(num_pixels)
        with hold(budget, num_pixels):
            yield

    monkeypatch.setattr(PixelBudget, "hold", noted)
    decoders = Decoders(ImageLimits(), 1, NotingProcesses())
    await decoders.decode(encode(PHOTO, image_format), None, RULE, soon())
    assert held == [num_pixels]
    decoders.close()


@pytest.mark.anyio
async def test_two_of_the_largest_images_are_decoded_together() -> None:
    at_once, most, counting = 0, 0, threading.Lock()

    class Counting(NotingProcesses):
        def decode(self, job: Job) -> Pixels:
            nonlocal at_once, most
            with counting:
                at_once += 1
                most = max(most, at_once)
            square = super().decode(job)
            with counting:
                at_once -= 1
            return square

    webp = encode(PHOTO, "WEBP", lossless=True)
    decoders = Decoders(ImageLimits(max_image_pixels=PHOTO.width * PHOTO.height + 8_000_000), 6, Counting())
    for _ in range(5):
        await asyncio.gather(*[decoders.decode(webp, None, RULE, soon()) for _ in range(6)])
    assert 1 <= most <= 2
    decoders.close()


def is_any_thread_in(function: str) -> bool:
    stacks = [traceback.extract_stack(frame) for frame in sys._current_frames().values()]
    return any(entry.name == function for stack in stacks for entry in stack)


def test_a_large_image_is_not_passed_for_ever() -> None:
    """Two of 40 fit in 100. The 70 waits for both to go, and the 10 behind it waits, though there would be room."""
    budget = PixelBudget(100)
    order: list[int] = []
    entered, leave = ({number: threading.Event() for number in (40, 41, 70, 10)} for _ in range(2))

    def decode(pixels: int) -> None:
        with budget.hold(pixels):
            order.append(pixels)
            entered[pixels].set()
            assert leave[pixels].wait(60)

    with ThreadPoolExecutor(4) as threads:
        try:
            for pixels in (40, 41):
                threads.submit(decode, pixels)
                assert entered[pixels].wait(60)
            threads.submit(decode, 70)
            wait_until(lambda: is_any_thread_in("wait_for"))
            threads.submit(decode, 10)
            leave[40].set()
            assert order == [40, 41]
            leave[41].set()
            assert entered[70].wait(60)
            assert entered[10].wait(60)
            assert order == [40, 41, 70, 10]
        finally:
            for event in leave.values():
                event.set()


def test_an_image_larger_than_the_budget_is_decoded_alone() -> None:
    with PixelBudget(10).hold(11):
        pass


@pytest.mark.anyio
async def test_by_default_a_thread_more_than_cores_decodes() -> None:
    all_at_once = threading.Barrier(count_cores() + 1, timeout=60)

    class Meeting(NotingProcesses):
        def decode(self, job: Job) -> Pixels:
            all_at_once.wait()
            return super().decode(job)

    decoders = Decoders(ImageLimits(max_image_pixels=1_000_000_000), processes=Meeting())
    await asyncio.gather(
        *[decoders.decode(encode(PHOTO, "TIFF"), None, RULE, soon()) for _ in range(count_cores() + 1)]
    )
    decoders.close()


def test_pixels_of_all_workers_share_one_budget() -> None:
    neighbour = OwnUsage(num_pixels=50)
    shared = Alone(others=(neighbour,))
    budget = PixelBudget(100, shared)
    with budget.hold(50):
        assert shared.own.num_pixels == 50
    entered = threading.Event()

    def decode() -> None:
        with budget.hold(60):
            entered.set()

    with ThreadPoolExecutor(1) as threads:
        threads.submit(decode)
        wait_until(lambda: is_any_thread_in("wait_for"))
        assert not entered.is_set()
        neighbour.num_pixels = 40
        assert entered.wait(60)
