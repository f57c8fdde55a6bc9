import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import ExifTags, Image
from structlog.testing import capture_logs
from support.drawing import draw_photograph, encode, profile_with_red_and_green_exchanged
from support.icc import cmyk_profile, matrix_profile
from support.memory import memory_bytes

from benchmarks.reliability.hostile_files import fax, larger_inside, webp_of_tables
from service.errors import (
    DeadlineExceeded,
    ImageBytesTooLarge,
    ImageTooLarge,
    InvalidImage,
    MissingImage,
    OutOfMemory,
    QueueFull,
    UnsupportedImageFormat,
)
from service.imaging.decode import decode_square
from service.imaging.pixels import ImageLimits, ResizeRule
from service.inference import decode_process
from service.inference.decode_process import DecodeProcesses

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

RULE = ResizeRule(image_size=64, shorter_side=80)
PHOTO = draw_photograph(0, seed=1)
EXIF = Image.Exif()
EXIF[ExifTags.Base.Orientation] = 6
PROFILE = profile_with_red_and_green_exchanged()
FORMATS = ("PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "JPEG")


def command(program: str) -> list[str]:
    """A process that is ready at once, and then does as `program` says."""
    return [sys.executable, "-c", f"import os, struct, sys, time\nos.write(1, b'\\n')\n{program}"]


TAKES_A_REQUEST = "sys.stdin.buffer.read(struct.unpack('<d5Q', sys.stdin.buffer.read(48))[1])\n"
SLEEPER = command("sys.stdin.buffer.read()")


@pytest.fixture
def processes() -> Iterator[DecodeProcesses]:
    processes = DecodeProcesses(ImageLimits(max_image_pixels=1_000_000))
    yield processes
    processes.close()


def soon(seconds: float = 60) -> float:
    return time.monotonic() + seconds


def wait_until(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.01)


def only_one(processes: DecodeProcesses) -> subprocess.Popen[bytes]:
    (process,) = processes._running
    return process


def test_the_pixels_are_those_of_this_process_in_one_other_for_all(processes: DecodeProcesses) -> None:
    for image_format in FORMATS:
        data = encode(PHOTO, image_format)
        assert np.array_equal(processes.decode_square(data, RULE, soon()), decode_square(data, RULE))
    for mode, profile in (("RGB", matrix_profile(2.2)), ("CMYK", cmyk_profile())):
        data = encode(PHOTO.convert(mode), "TIFF", icc_profile=profile)
        assert np.array_equal(processes.decode_square(data, RULE, soon()), decode_square(data, RULE))
    assert only_one(processes).pid != os.getpid()


def test_threads_that_ask_at_the_same_time_have_a_process_each(processes: DecodeProcesses) -> None:
    photos = [encode(draw_photograph(number, seed=1), "PNG") for number in range(3)]
    answers: dict[int, bool] = {}

    def ask(number: int) -> None:
        for _ in range(10):
            found = processes.decode_square(photos[number], RULE, soon())
            answers[number] = answers.get(number, True) and np.array_equal(found, decode_square(photos[number], RULE))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {0: True, 1: True, 2: True}
    assert 1 <= len(processes._running) == len(processes._idle) <= 3


def test_what_is_wrong_with_a_picture_is_said_as_here(processes: DecodeProcesses) -> None:
    broken = encode(PHOTO, "PNG")
    for data, kind in [
        (broken[:2000], InvalidImage),
        (broken[:-40] + bytes(40), InvalidImage),
        (encode(PHOTO.resize((1001, 1000)), "PNG"), ImageTooLarge),
        (broken + bytes(20 * 1024 * 1024), ImageBytesTooLarge),
        (b"a text", UnsupportedImageFormat),
        (b"", MissingImage),
    ]:
        with pytest.raises(kind) as here:
            decode_square(data, RULE, ImageLimits(max_image_pixels=1_000_000))
        with pytest.raises(kind) as there:
            processes.decode_square(data, RULE, soon())
        assert str(there.value) == str(here.value)
    assert len(processes._running) == 1  # none of them has ended it


@pytest.mark.parametrize(
    ("make", "max_image_pixels"),
    [(lambda: webp_of_tables(1_000), 50_000_000), (lambda: larger_inside(6_000), 1_000_000)],
    ids=["WebP", "AVIF"],
)
def test_a_picture_that_wants_more_memory_than_its_pixels_need_does_not_get_it(
    processes: DecodeProcesses, make: Callable[[], bytes], max_image_pixels: int
) -> None:
    """It announces a million; an AVIF may take what the largest picture may."""
    data = make()
    processes._limits = ImageLimits(max_image_pixels=max_image_pixels)
    processes.decode_square(encode(PHOTO, "AVIF"), RULE, soon())
    process = only_one(processes)
    before = memory_bytes("VmHWM", process.pid)
    with pytest.raises(InvalidImage, match="cannot be read"):
        processes.decode_square(data, RULE, soon())
    assert memory_bytes("VmHWM", process.pid) - before < 100_000_000  # 17 million, a margin of 64 MiB, and the file
    assert processes.decode_square(encode(PHOTO), RULE, soon()).shape == (64, 64, 3)
    assert only_one(processes) is process


def test_what_a_library_prints_is_nobody_s(processes: DecodeProcesses, capfd: pytest.CaptureFixture[str]) -> None:
    """Four megabytes, which would go into the service's log."""
    with suppress(InvalidImage):
        processes.decode_square(fax(60_000), RULE, soon())
    assert only_one(processes).poll() is None
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("PNG", {"compress_level": 1}),
        ("WEBP", {"method": 0}),
        ("WEBP", {"method": 0, "lossless": True}),
        ("AVIF", {"speed": 10, "subsampling": "4:4:4"}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
    ids=["PNG", "WebP", "lossless WebP", "AVIF", "TIFF"],
)
def test_a_picture_of_as_many_pixels_as_may_be_has_room(
    monkeypatch: pytest.MonkeyPatch, image_format: str, options: dict[str, object]
) -> None:
    """With a quarter of the pixels and of the margin: each is as much in proportion as by default."""
    scaled = "from service.inference import decode_process as d; d._MARGIN_BYTES //= 4; d.main()"
    monkeypatch.setattr(decode_process, "_COMMAND", [sys.executable, "-c", scaled])
    processes = DecodeProcesses(ImageLimits(max_image_pixels=12_500_000))
    options |= {"exif": EXIF, "icc_profile": PROFILE}
    try:
        picture = Image.new("RGBA", (4000, 3000), (200, 30, 40, 200))
        assert processes.decode_square(encode(picture, image_format, **options), RULE, soon()).shape == (64, 64, 3)
    finally:
        processes.close()


def test_one_that_was_idle_and_has_ended_is_replaced(processes: DecodeProcesses) -> None:
    data = encode(PHOTO, "PNG")
    processes.decode_square(data, RULE, soon())
    old = only_one(processes)
    old.kill()
    old.wait()
    assert processes.decode_square(data, RULE, soon()).shape == (64, 64, 3)
    assert only_one(processes) is not old


def test_it_ends_when_nobody_has_asked_for_long(processes: DecodeProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    end_soon = "from service.inference import decode_process as d; d._IDLE_S = 3; d.main()"
    monkeypatch.setattr(decode_process, "_COMMAND", [sys.executable, "-c", end_soon])
    processes.decode_square(encode(PHOTO, "PNG"), RULE, soon())
    process = only_one(processes)
    assert process.wait(30) == 0
    assert processes._take_idle() is None
    assert not processes._running  # it was cleared away


def test_a_picture_that_brings_the_decoder_down_is_at_fault(
    processes: DecodeProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_process, "_COMMAND", command(TAKES_A_REQUEST + "os.abort()"))
    with capture_logs() as logs, pytest.raises(InvalidImage, match="brings the decoder down"):
        processes.decode_square(encode(PHOTO, "PNG"), RULE, soon())
    assert [(entry["event"], entry["exit_code"]) for entry in logs] == [
        ("a picture has brought its decoder down", -signal.SIGABRT)
    ]
    monkeypatch.undo()
    assert processes.decode_square(encode(PHOTO, "PNG"), RULE, soon()).shape == (64, 64, 3)


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_a_sound_image_in_a_process_without_memory_is_not_at_fault(
    processes: DecodeProcesses, monkeypatch: pytest.MonkeyPatch, image_format: str
) -> None:
    """As in a small container. Its small neighbour is answered all the same."""
    program = (
        "import resource\nfrom service.inference import decode_process as d\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (d._data_bytes() + 3 * 2**20,) * 2)\nd.main()"
    )
    monkeypatch.setattr(decode_process, "_COMMAND", [sys.executable, "-c", program])
    with pytest.raises(OutOfMemory, match="not at fault"):
        processes.decode_square(encode(PHOTO.resize((1000, 1000)), image_format), RULE, soon())
    assert processes.decode_square(encode(PHOTO, "PNG"), RULE, soon()).shape == (64, 64, 3)


@pytest.mark.parametrize(
    "end",
    [
        "os.kill(os.getpid(), 9)",
        "os._exit(75)",
        "os.write(1, struct.pack('<2Q', 7, 0)); os.abort()",
        "os.write(1, struct.pack('<2Q', 7, 0)); os.kill(os.getpid(), 11)",
    ],
    ids=["by the kernel", "by itself", "noted, aborted", "noted, crashed"],
)
def test_a_decoder_that_ends_for_want_of_memory_blames_no_image(
    processes: DecodeProcesses, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(decode_process, "_COMMAND", command(TAKES_A_REQUEST + end))
    with capture_logs() as logs, pytest.raises(OutOfMemory, match="not at fault"):
        processes.decode_square(encode(PHOTO, "PNG"), RULE, soon())
    assert [entry["event"] for entry in logs] == ["decoder out of memory"]


def test_a_crash_in_a_process_without_memory_blames_no_image(
    processes: DecodeProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some libraries do not look whether they got the memory that they asked for."""
    program = (
        "import os, resource\nfrom service.inference import decode_process as d\n"
        "d.decode_square = lambda data, rule, limits, before: (before(1_000_000, None), os.abort())\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (d._data_bytes() + 3 * 2**20,) * 2)\nd.main()"
    )
    monkeypatch.setattr(decode_process, "_COMMAND", [sys.executable, "-c", program])
    with pytest.raises(OutOfMemory, match="not at fault"):
        processes.decode_square(encode(PHOTO, "PNG"), RULE, soon())


def test_memory_errors_of_the_process_itself_blame_no_image(
    processes: DecodeProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it reads the file, and while it decodes."""
    for broken in ("read_all", "decode_square"):
        program = (
            "from service.inference import decode_process as d\n"
            f"def fail(*_): raise MemoryError\n"
            f"read = d.read_all; d.{broken} = fail if {broken == 'decode_square'} else "
            "lambda stream, size: read(stream, size) if size == 48 else fail()\n"
            "d.main()"
        )
        monkeypatch.setattr(decode_process, "_COMMAND", [sys.executable, "-c", program])
        with pytest.raises(OutOfMemory, match="not at fault"):
            processes.decode_square(encode(PHOTO, "PNG"), RULE, soon())
        processes._end(processes._idle.pop()) if processes._idle else None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOMEM, "Cannot allocate memory"), OutOfMemory),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), OutOfMemory),
        (OSError(errno.EMFILE, "Too many open files"), QueueFull),
    ],
)
def test_without_a_process_the_reason_decides(
    processes: DecodeProcesses, monkeypatch: pytest.MonkeyPatch, error: OSError, kind: type[Exception]
) -> None:
    monkeypatch.setattr(subprocess, "Popen", Mock(side_effect=error))
    with pytest.raises(kind):
        processes.decode_square(encode(PHOTO, "AVIF"), RULE, soon())
    assert processes.decode_square(encode(PHOTO, "PNG"), RULE, soon()).shape == (64, 64, 3)


@pytest.mark.parametrize(
    "answer", ["", "0, 12", "9, 0", "1, 2**40"], ids=["nothing", "few pixels", "unknown", "a long sentence"]
)
def test_an_answer_that_is_none_is_not_believed(
    processes: DecodeProcesses, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """What decodes hostile bytes may have been taken over by them."""
    say = f"os.write(1, struct.pack('<2Q', {answer}) + bytes(99))" if answer else ""
    monkeypatch.setattr(decode_process, "_COMMAND", command(TAKES_A_REQUEST + say))
    with pytest.raises(InvalidImage, match="brings the decoder down"):
        processes.decode_square(encode(PHOTO, "PNG"), RULE, soon())


SLOW = "import time; from service.inference import decode_process as d; d._decode = lambda *_: time.sleep(60); d.main()"


@pytest.mark.parametrize(
    ("program", "number"),
    [([sys.executable, "-c", SLOW], signal.SIGALRM), (SLEEPER, signal.SIGKILL)],
    ids=["by itself", "by the service"],
)
def test_what_takes_too_long_is_ended(
    processes: DecodeProcesses, monkeypatch: pytest.MonkeyPatch, program: list[str], number: signal.Signals
) -> None:
    monkeypatch.setattr(decode_process, "_COMMAND", program)
    process = processes._start()
    processes._give_back(process)
    with pytest.raises(DeadlineExceeded):
        processes.decode_square(encode(PHOTO, "PNG"), RULE, soon(1))
    assert process.returncode == -number
    assert not processes._running


def test_no_thread_is_started_for_an_image(processes: DecodeProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython waits for ever for a new thread that finds no memory to begin with."""
    start = Mock()
    monkeypatch.setattr(threading.Thread, "start", start)
    for _ in range(2):
        processes.decode_square(encode(PHOTO, "PNG"), RULE, soon())
    start.assert_not_called()


def test_one_that_never_gets_up_is_ended(processes: DecodeProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_process, "_COMMAND", [sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(decode_process, "_START_S", 0.2)
    data = encode(PHOTO, "PNG")
    assert np.array_equal(processes.decode_square(data, RULE, soon()), decode_square(data, RULE))
    assert not processes._running


def test_a_picture_costs_no_more_than_two_decoders(processes: DecodeProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_process, "_COMMAND", command(TAKES_A_REQUEST))
    warm = [processes._start() for _ in range(3)]
    for process in warm:
        processes._give_back(process)
    with pytest.raises(InvalidImage):
        processes.decode_square(encode(PHOTO, "PNG"), RULE, soon())
    assert processes._idle == warm[:2]


def test_a_slow_start_is_not_in_vain(processes: DecodeProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else requests that wait less long than a start takes would be answered never."""
    slow = "import time; time.sleep(0.5); from service.inference.decode_process import main; main()"
    monkeypatch.setattr(decode_process, "_COMMAND", [sys.executable, "-c", slow])
    with pytest.raises(DeadlineExceeded):
        processes.decode_square(encode(PHOTO, "PNG"), RULE, soon(0.2))
    (process,) = processes._idle
    assert processes.decode_square(encode(PHOTO, "PNG"), RULE, soon()).shape == (64, 64, 3)
    assert processes._idle == [process]
    with pytest.raises(DeadlineExceeded):
        processes.decode_square(encode(PHOTO, "PNG"), RULE, soon(-1))


@pytest.mark.parametrize("program", [["/no/such/program"], [sys.executable, "-c", "import no_such_module"]])
def test_where_no_process_can_be_had_the_thread_decodes(
    processes: DecodeProcesses, monkeypatch: pytest.MonkeyPatch, program: list[str]
) -> None:
    monkeypatch.setattr(decode_process, "_COMMAND", program)
    data = encode(PHOTO, "PNG")
    with capture_logs() as logs:
        assert np.array_equal(processes.decode_square(data, RULE, soon()), decode_square(data, RULE))
    assert [entry["event"] for entry in logs] == ["no process for a picture"]
    with pytest.raises(QueueFull, match="No process can be had"):
        processes.decode_square(encode(PHOTO, "AVIF"), RULE, soon())
    assert not processes._running


def test_keys_are_not_handed_on(processes: DecodeProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWERS_API_KEYS", "secret")
    processes.decode_square(encode(PHOTO, "PNG"), RULE, soon())
    process = only_one(processes)
    assert b"secret" not in Path(f"/proc/{process.pid}/environ").read_bytes()


def test_all_end_at_the_close_whatever_they_are_at(processes: DecodeProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    processes.decode_square(encode(PHOTO, "PNG"), RULE, soon())
    idle = processes._idle.pop()  # so that the next is not it
    monkeypatch.setattr(decode_process, "_COMMAND", SLEEPER)

    def ask() -> None:
        with suppress(DeadlineExceeded):
            processes.decode_square(encode(PHOTO, "PNG"), RULE, soon())

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: len(processes._running) == 2)
    processes._idle.append(idle)
    processes.close()
    asking.join(30)
    assert not asking.is_alive()
    assert idle.returncode == -signal.SIGKILL
    assert not processes._running
    with pytest.raises(DeadlineExceeded):  # a thread that is late
        processes.decode_square(encode(PHOTO, "PNG"), RULE, soon())
    assert not processes._running


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_one_that_is_idle_ends_with_its_service_and_not_before(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "photo.png").write_bytes(encode(PHOTO, "PNG"))
    program = (
        "import pathlib, sys, time\n"
        "from service.imaging.pixels import ImageLimits, ResizeRule\n"
        "from service.inference.decode_process import DecodeProcesses\n"
        "processes = DecodeProcesses(ImageLimits())\n"
        "data = pathlib.Path(sys.argv[1]).read_bytes()\n"
        "while True:\n"
        "    processes.decode_square(data, ResizeRule(), time.monotonic() + 60)\n"
        "    print(*[process.pid for process in processes._running], flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    start = [sys.executable, "-c", program, str(tmp_path / "photo.png")]
    with subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdin is not None
        assert service.stdout is not None
        decoder = int(service.stdout.readline())
        os.kill(decoder, signal.SIGTERM)  # some supervisors send them to all
        os.kill(decoder, signal.SIGINT)
        os.kill(decoder, signal.SIGHUP)
        service.stdin.write("once more\n")
        service.stdin.flush()
        assert int(service.stdout.readline()) == decoder
        service.send_signal(number)
    wait_until(lambda: is_gone(decoder))


def is_gone(pid: int) -> bool:
    """Whether it has ended, or only waits for whoever has taken it over to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
