"""One process: what it is told, what it answers, and what ends it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image
from support.drawing import draw_photograph, encode, profile_with_red_and_green_exchanged
from support.heic import CRASHES, HEIC, needs_library
from support.hostile_files import fax, larger_inside, webp_of_tables
from support.icc import cmyk_profile, matrix_profile
from support.memory import memory_bytes
from support.processes import children, is_gone, wait_until

from service.errors import FlowersError, InvalidImage, OutOfMemory
from service.imaging.decode import decode_square
from service.imaging.inspection import inspect
from service.imaging.limits import ImageLimits, ResizeRule
from service.imaging.pixels import Pixels
from service.inference.decode_process import COMMAND, DecodeProcess, DecoderEnded, Job

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

RULE = ResizeRule(image_size=64, shorter_side=80)
PHOTO = draw_photograph(0, seed=1)
PNG = encode(PHOTO, "PNG")
EXIF = Image.Exif()
EXIF[ExifTags.Base.Orientation] = 6


def command(program: str) -> list[str]:
    """A process that is ready at once, takes a request, and then does as `program` says."""
    return [
        sys.executable, "-c",
        "import os, socket, struct, time\nservice = socket.socket(fileno=0)\nservice.sendall(b'\\n')\n"
        "file = service.makefile('rb')\n_, *sizes = struct.unpack('<d2Q', file.read(24))\n"
        f"_, data = map(file.read, sizes)\n{program}",
    ]  # fmt: skip


def changed(program: str) -> list[str]:
    """A process as it is, in which `program` has changed something."""
    return [sys.executable, "-c", f"from service.inference import decode_process as d\n{program}\nd.main()"]


POOR = changed(  # what Pillow imports at its first image is there before, as its size depends on the environment
    "from PIL import Image; Image.init()\n"
    "import resource; resource.setrlimit(resource.RLIMIT_DATA, (d.data_bytes() + 4 * 2**20,) * 2)"
)


@contextmanager
def started(start: Any = COMMAND) -> Iterator[DecodeProcess]:
    process = DecodeProcess(start)
    try:
        yield process
    finally:
        process.close()


@pytest.fixture(scope="module")
def process() -> Iterator[DecodeProcess]:
    with started() as process:
        yield process


def soon(seconds: float = 60) -> float:
    return time.monotonic() + seconds


def ask(process: DecodeProcess, data: bytes, limits: ImageLimits | None = None) -> Pixels | FlowersError:
    return process.ask(Job(data, inspect(data, limits or ImageLimits()), RULE, soon()))


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "JPEG"])
def test_its_pixels_are_those_of_this_process(process: DecodeProcess, image_format: str) -> None:
    data = encode(PHOTO, image_format)
    answer = ask(process, data)
    np.testing.assert_array_equal(answer, decode_square(data, RULE))
    assert isinstance(answer, np.ndarray)
    assert not answer.flags.writeable


@needs_library
@pytest.mark.parametrize("name", HEIC)
def test_heic_is_decoded_in_the_process(process: DecodeProcess, name: str) -> None:
    np.testing.assert_array_equal(ask(process, HEIC[name]), decode_square(HEIC[name], RULE))
    broken = ask(process, HEIC[name][:-1])
    assert isinstance(broken, InvalidImage)


@needs_library
def test_a_heic_that_crashes_its_process_leaves_the_service() -> None:
    with started() as process, pytest.raises(DecoderEnded) as ended:
        ask(process, CRASHES)
    assert not ended.value.is_starved


@pytest.mark.parametrize(("mode", "profile"), [("RGB", matrix_profile(2.2)), ("CMYK", cmyk_profile())])
def test_its_colours_are_those_of_this_process(process: DecodeProcess, mode: str, profile: bytes) -> None:
    data = encode(PHOTO.convert(mode), "TIFF", icc_profile=profile)
    np.testing.assert_array_equal(ask(process, data), decode_square(data, RULE))


@pytest.mark.parametrize("data", [PNG[:-40] + bytes(40), PNG[:2000] + bytes(9) + PNG[2009:]])
def test_an_image_s_error_is_that_of_this_process(process: DecodeProcess, data: bytes) -> None:
    inspection = inspect(PNG, ImageLimits())
    with pytest.raises(InvalidImage) as here:
        decode_square(data, RULE, inspection)
    there = process.ask(Job(data, inspection, RULE, soon()))
    assert (type(there), str(there)) == (InvalidImage, str(here.value))
    assert process.exit_code is None


@pytest.mark.parametrize(
    ("data", "max_image_pixels"),
    [(webp_of_tables(1_000), 50_000_000), (larger_inside(6_000), 1_000_000)],
    ids=["WebP", "AVIF"],
)
def test_an_image_gets_the_memory_of_its_pixels(data: bytes, max_image_pixels: int) -> None:
    """It announces a million. An AVIF may take as much as the largest image."""
    limits, others = ImageLimits(max_image_pixels=max_image_pixels), children()
    with started() as process:
        ask(process, encode(PHOTO, "AVIF"), limits)
        [pid] = children() - others
        before = memory_bytes("VmHWM", pid)
        with pytest.raises(InvalidImage, match="cannot be read"):
            raise_error(ask(process, data, limits))
        assert memory_bytes("VmHWM", pid) - before < 100_000_000  # 17 million, a margin of 64 MiB, and the file
        assert isinstance(ask(process, PNG), np.ndarray)


def raise_error(answer: Pixels | FlowersError) -> None:
    if isinstance(answer, FlowersError):
        raise answer


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
def test_the_largest_image_has_enough_memory(image_format: str, options: dict[str, object]) -> None:
    """With a quarter of the pixels and of the margin. Each is as much in proportion as by default."""
    quarter = [sys.executable, "-c", "from service.inference.decode_process import *; main(margin_bytes=2**24)"]
    options |= {"exif": EXIF, "icc_profile": profile_with_red_and_green_exchanged()}
    image = Image.new("RGBA", (4000, 3000), (200, 30, 40, 200))
    with started(quarter) as process:
        data = encode(image, image_format, **options)
        assert isinstance(ask(process, data, ImageLimits(max_image_pixels=12_500_000)), np.ndarray)


def test_the_output_of_libraries_is_dropped(process: DecodeProcess, capfd: pytest.CaptureFixture[str]) -> None:
    """Four megabytes, which would go into the service's log."""
    with suppress(InvalidImage):
        ask(process, fax(60_000))
    assert process.exit_code is None
    assert capfd.readouterr() == ("", "")


def test_a_process_gets_no_descriptor_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWERS_API_KEYS", "secret")
    others = children()
    with started():
        [pid] = children() - others
        assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert {path.name for path in Path(f"/proc/{pid}/fd").iterdir()} == {"0", "1", "2"}


def test_nothing_is_imported_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    with started() as process:
        assert isinstance(ask(process, PNG), np.ndarray)


def test_a_process_ends_without_a_request() -> None:
    with started([sys.executable, "-c", "from service.inference.decode_process import *; main(idle_s=0.1)"]) as process:
        wait_until(lambda: process.exit_code == 0)


@pytest.mark.parametrize(
    ("end", "is_starved"),
    [
        ("os.abort()", False),
        ("os.kill(os.getpid(), 9)", True),
        ("os._exit(75)", True),
        ("service.sendall(b'-'); os.abort()", True),
        ("service.sendall(b'-'); os.kill(os.getpid(), 11)", True),
    ],
    ids=["aborted", "by the kernel", "by itself", "noted, aborted", "noted, crashed"],
)
def test_its_end_tells_whether_memory_was_short(end: str, is_starved: bool) -> None:
    with started(command(end)) as process, pytest.raises(DecoderEnded) as ended:
        ask(process, PNG)
    assert ended.value.is_starved == is_starved


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_a_sound_image_without_memory_is_not_at_fault(image_format: str) -> None:
    """As in a small container. Its small neighbour is answered all the same."""
    with started(POOR) as process:
        answer = ask(process, encode(PHOTO.resize((1000, 1000)), image_format))
        assert isinstance(answer, OutOfMemory)
        assert isinstance(ask(process, PNG), np.ndarray)


def test_a_crash_without_memory_blames_no_image() -> None:
    """Some libraries do not check that they got the memory that they asked for."""
    crash = "import os, resource; d.decode_square = lambda *_, **__: os.abort()"
    start = [*POOR[:2], POOR[2].replace("import resource", crash)]
    with started(start) as process, pytest.raises(DecoderEnded) as ended:
        ask(process, encode(PHOTO.resize((1000, 1000)), "AVIF"))
    assert ended.value.is_starved


FAIL = "def fail(*_, **__): raise MemoryError\n"


def test_a_decoder_without_memory_blames_no_image() -> None:
    with started(changed(FAIL + "d.decode_square, d.can_allocate = fail, lambda _: False")) as process:
        assert isinstance(ask(process, PNG), OutOfMemory)


def test_a_file_without_memory_ends_the_process_starved() -> None:
    with started(changed(FAIL + "d.pickle.loads = fail")) as process, pytest.raises(DecoderEnded) as ended:
        ask(process, PNG)
    assert ended.value.is_starved


@pytest.mark.parametrize(
    "answer", ["0, 12", "9, 0", "6, 0", "1, 2**40", "0, 2**40"],
    ids=["few pixels", "unknown", "beyond the last", "a long sentence", "many pixels"],
)  # fmt: skip
def test_an_answer_of_another_form_is_not_believed(answer: str) -> None:
    """Hostile bytes may have taken over the decoder."""
    program = f"service.sendall(b'+' + struct.pack('<2Q', {answer}) + bytes(99)); file.read()"
    with started(command(program)) as process, pytest.raises(DecoderEnded):
        ask(process, PNG)


def test_nothing_that_it_answers_is_unpickled() -> None:
    """A pickle that ends this process, as the sentence of an error."""
    program = (
        "import pickle\nclass End:\n    def __reduce__(self): return os._exit, (9,)\n"
        "end = pickle.dumps(End()); service.sendall(b'+' + struct.pack('<2Q', 3, len(end)) + end); file.read()"
    )
    with started(command(program)) as process:
        assert isinstance(ask(process, PNG), InvalidImage)


@pytest.mark.parametrize(
    "program", ["time.sleep(9)", "[service.sendall(bytes(1)) or time.sleep(0.1) for _ in range(90)]"],
    ids=["silent", "byte by byte"],
)  # fmt: skip
def test_a_late_answer_is_not_awaited(program: str) -> None:
    with started(command(program)) as process, pytest.raises(TimeoutError):
        process.ask(Job(PNG, inspect(PNG, ImageLimits()), RULE, soon(0.2)))


def test_a_file_that_is_not_read_is_not_awaited() -> None:
    unread = [sys.executable, "-c", "import os, time; os.write(0, b'\\n'); time.sleep(9)"]
    data = PNG + bytes(10_000_000)
    with started(unread) as process, pytest.raises(TimeoutError):
        process.ask(Job(data, inspect(data, ImageLimits()), RULE, soon(0.2)))


SERVICE = """
import pathlib, sys, time
from service.imaging.inspection import inspect
from service.imaging.limits import ImageLimits, ResizeRule
from service.inference.decode_process import DecodeProcess, Job
from support.processes import children
data = pathlib.Path(sys.argv[1]).read_bytes()
process = DecodeProcess(sys.argv[2:])
print(*children(), flush=True)
while True:
    process.ask(Job(data, inspect(data, ImageLimits()), ResizeRule(), time.monotonic() + 2))
    print("decoded", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def service(tmp_path: Path, *start: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A process that has a decoder, and the decoder's number."""
    (tmp_path / "photo.png").write_bytes(PNG)
    arguments = [sys.executable, "-c", SERVICE, str(tmp_path / "photo.png"), *start]
    paths = os.pathsep.join(str(Path(__file__).parents[number]) for number in (1, 2))
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    ) as running:
        assert running.stdout is not None
        yield running, int(running.stdout.readline())
        running.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_idle_process_ends_with_its_service(tmp_path: Path, number: signal.Signals) -> None:
    with service(tmp_path, *COMMAND) as (running, decoder):
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stdout.readline() == "decoded\n"
        for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # some supervisors send them to all
            os.kill(decoder, ignored)
        running.stdin.write("once more\n")
        running.stdin.flush()
        assert running.stdout.readline() == "decoded\n"
        running.send_signal(number)
        wait_until(lambda: is_gone(decoder))


def test_a_hung_process_ends_after_a_killed_service(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    hang = f"import time; d.decode_square = lambda *_, **__: (d.Path({str(begun)!r}).touch(), time.sleep(600))"
    with service(tmp_path, *changed(hang)) as (running, decoder):
        wait_until(begun.exists)
        running.kill()
        wait_until(lambda: is_gone(decoder))


def test_a_process_waits_a_minute_for_the_next_image() -> None:
    """Its exit code tells how long it would have waited."""
    with started(changed("d.select.select = lambda *_: d.os._exit(int(_[3]))")) as process:
        wait_until(lambda: process.exit_code == 60)
