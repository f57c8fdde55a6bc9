"""`fetch` against a real HTTP server: what it keeps, what it refuses, what it leaves behind."""

import hashlib
import http.server
import io
import os
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from service.data.fetch import FLOWER_PHOTOS, DataSet, fetch
from service.data.folder import read_folder
from service.errors import DownloadError

FILES = {f"flowers/{label}/{number}.jpg": os.urandom(3000) for label in ("daisy", "roses") for number in range(4)}
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def _archive(*odd_members: tarfile.TarInfo, files: dict[str, bytes] = FILES) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in odd_members:
            tar.addfile(member, io.BytesIO(b"\0" * member.size))
    return buffer.getvalue()


ARCHIVE = _archive()


class _Server:
    """Answers every GET with `answer`; counts them."""

    def __init__(self) -> None:
        self.requests = 0
        self.answer: Answer = _send(ARCHIVE)
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/flowers.tgz"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _send(body: bytes, *, announced: int | None = None, status: int = 200) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body) if announced is None else announced))
        request.end_headers()
        request.wfile.write(body)

    return answer


def _data_set(server: _Server, archive: bytes = ARCHIVE) -> DataSet:
    return DataSet("flowers", server.url, len(archive), hashlib.sha256(archive).hexdigest(), "flowers")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = _Server()
    yield server
    server.close()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "cache"


def _assert_nothing_was_kept(cache: Path) -> None:
    assert [entry.name for entry in cache.iterdir() if entry.name != ".flowers.lock"] == []


def test_progress_reaches_the_last_byte_of_an_archive(server: _Server, cache: Path) -> None:
    seen: list[tuple[int, int]] = []
    folder = fetch(_data_set(server), cache, progress=lambda done, total: seen.append((done, total)))
    assert folder == cache / "flowers"
    assert {f"flowers/{file.relative_to(folder)}": file.read_bytes() for file in folder.rglob("*.jpg")} == FILES
    assert read_folder(folder).class_names == ("daisy", "roses")
    assert seen == sorted(seen)
    assert seen[-1] == (len(ARCHIVE), len(ARCHIVE))
    assert {entry.name for entry in cache.iterdir()} == {"flowers", "flowers.tgz", ".flowers.lock"}


def test_a_second_call_finds_the_folder_and_asks_nobody(server: _Server, cache: Path) -> None:
    fetch(_data_set(server), cache)
    (cache / "flowers.tgz").unlink()
    assert fetch(_data_set(server), cache) == cache / "flowers"
    assert server.requests == 1


def test_an_intact_archive_is_not_downloaded_again(server: _Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "flowers.tgz").write_bytes(ARCHIVE)
    assert len(read_folder(fetch(_data_set(server), cache)).photographs) == len(FILES)
    assert server.requests == 0


@pytest.mark.parametrize("leftover", [ARCHIVE[:-1], b"\0" * len(ARCHIVE)], ids=["partial", "damaged"])
def test_partial_and_damaged_leftovers_are_replaced(server: _Server, cache: Path, leftover: bytes) -> None:
    (cache / ".flowers.unpacking" / "flowers" / "daisy").mkdir(parents=True)
    (cache / "flowers.tgz").write_bytes(leftover)
    (cache / "flowers.tgz.part").write_bytes(leftover + leftover)
    assert len(read_folder(fetch(_data_set(server), cache)).photographs) == len(FILES)
    assert (cache / "flowers.tgz").read_bytes() == ARCHIVE
    assert {entry.name for entry in cache.iterdir()} == {"flowers", "flowers.tgz", ".flowers.lock"}


@pytest.mark.parametrize("damage", ["missing", "shortened", "manifest"])
def test_a_damaged_folder_is_unpacked_again_without_a_download(server: _Server, cache: Path, damage: str) -> None:
    folder = fetch(_data_set(server), cache)
    if damage == "missing":
        (folder / "daisy" / "0.jpg").unlink()
    elif damage == "shortened":
        (folder / "daisy" / "0.jpg").write_bytes(b"")
    else:
        (folder / ".unpacked.json").write_text("{")
    fetch(_data_set(server), cache)
    assert (folder / "daisy" / "0.jpg").read_bytes() == FILES["flowers/daisy/0.jpg"]
    assert server.requests == 1


def test_a_folder_from_another_archive_is_replaced(server: _Server, cache: Path) -> None:
    fetch(_data_set(server), cache)
    newer = _archive(files={"flowers/daisy/new.jpg": os.urandom(3000)})
    server.answer = _send(newer)
    folder = fetch(_data_set(server, newer), cache)
    assert [file.name for file in folder.rglob("*.jpg")] == ["new.jpg"]


def test_a_folder_that_somebody_else_made_is_never_replaced(server: _Server, cache: Path) -> None:
    (cache / "flowers" / "mine").mkdir(parents=True)
    (cache / "flowers" / "mine" / "1.jpg").write_bytes(b"mine")
    with pytest.raises(DownloadError, match="was not made by this program"):
        fetch(_data_set(server), cache)
    assert (cache / "flowers" / "mine" / "1.jpg").read_bytes() == b"mine"
    assert server.requests == 0


def test_two_at_once_download_once(server: _Server, cache: Path) -> None:
    with ThreadPoolExecutor(2) as executor:
        folders = list(executor.map(lambda _: fetch(_data_set(server), cache), range(2)))
    assert folders == [cache / "flowers"] * 2
    assert server.requests == 1


def _stop_half_way(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()  # without a length only the missing bytes tell
    request.wfile.write(ARCHIVE[: len(ARCHIVE) // 2])


def _never_stop(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        while True:
            request.wfile.write(b"\0" * 65536)
    except OSError:  # the client has hung up, as it should
        pass


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (_send(bytes(len(ARCHIVE))), "sent other bytes, with sha256"),
        (_send(ARCHIVE[:-100], announced=len(ARCHIVE)), "could not be fetched"),
        (_stop_half_way, f"sent {len(ARCHIVE) // 2} bytes instead of {len(ARCHIVE)}"),
        (_send(ARCHIVE + b"more"), f"sent more than the expected {len(ARCHIVE)} bytes"),
        (_never_stop, f"sent more than the expected {len(ARCHIVE)} bytes"),
        (_send(b"nothing here", status=404), "answered with status 404"),
        (_send(b"broken", status=500), "answered with status 500"),
    ],
    ids=["wrong checksum", "truncated", "truncated, no length", "longer", "endless", "404", "500"],
)
def test_unexpected_bytes_are_refused_and_not_kept(server: _Server, cache: Path, answer: Answer, message: str) -> None:
    server.answer = answer
    with pytest.raises(DownloadError, match=message) as raised:
        fetch(_data_set(server), cache)
    assert "download and unpack it yourself" in str(raised.value)
    _assert_nothing_was_kept(cache)


def test_without_a_network_the_message_names_the_way_round(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: a connection is refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/flowers.tgz"
        with pytest.raises(DownloadError, match=r"could not be fetched .* train on that folder with `flowers train"):
            fetch(DataSet("flowers", url, 1, "0" * 64, "flowers"), cache)
    _assert_nothing_was_kept(cache)


@pytest.mark.parametrize(
    ("variable", "value"), [("ALL_PROXY", "socks5://127.0.0.1:9"), ("SSL_CERT_FILE", "/nowhere.pem")]
)
def test_a_wrong_variable_is_named_in_one_sentence(
    cache: Path, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "ALL_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY" if variable == "SSL_CERT_FILE" else "NO_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv(variable, value)
    with pytest.raises(DownloadError, match=f"could not be fetched\\. {variable} .*unset ") as raised:
        fetch(FLOWER_PHOTOS, cache)
    assert "make room" not in str(raised.value)
    assert "train on that folder" in str(raised.value)


@pytest.mark.parametrize("url", ["http://[/x", "ftp://127.0.0.1/x", "no address"])
def test_an_impossible_address_is_one_clear_error(cache: Path, url: str) -> None:
    with pytest.raises(DownloadError, match="could not be fetched"):
        fetch(replace(FLOWER_PHOTOS, url=url), cache)


def test_an_unwritable_cache_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadError, match=r"cannot be kept in .*choose another --cache"):
        fetch(FLOWER_PHOTOS, tmp_path / "file" / "cache")


def _member(name: str, *, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, size
    return member


@pytest.mark.parametrize(
    "members",
    [
        [_member("flowers/../../escaped", size=5)],
        [_member("../flowers/escaped", size=5)],
        [_member("{outside}/escaped", size=5)],
        [_member("flowers/up", kind=tarfile.SYMTYPE, link="../.."), _member("flowers/up/escaped", size=5)],
        [_member("flowers/link", kind=tarfile.SYMTYPE, link="{outside}")],
        [_member("flowers/link", kind=tarfile.LNKTYPE, link="../secret")],
        [_member("flowers/link", kind=tarfile.LNKTYPE, link="{outside}/secret")],
        [_member("flowers/pipe", kind=tarfile.FIFOTYPE)],
        [_member("flowers/device", kind=tarfile.CHRTYPE)],
        [_member("elsewhere/1.jpg", size=5)],
    ],
    ids=[
        "dots inside", "dots first", "absolute", "through a symlink", "symlink", "hard link up",
        "hard link absolute", "pipe", "device", "other folder",
    ],
)  # fmt: skip
def test_an_archive_that_leaves_its_folder_writes_nothing(
    server: _Server, cache: Path, tmp_path: Path, members: list[tarfile.TarInfo]
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    for member in members:
        member.name = member.name.replace("{outside}", str(tmp_path))
        member.linkname = member.linkname.replace("{outside}", str(tmp_path))
    archive = _archive(*members)
    server.answer = _send(archive)
    with pytest.raises(DownloadError, match="not a plain file or folder under flowers/"):
        fetch(_data_set(server, archive), cache)
    assert {entry.name for entry in cache.iterdir()} == {"flowers.tgz", ".flowers.lock"}
    assert {str(entry.relative_to(tmp_path)) for entry in tmp_path.rglob("*")} == {
        "secret", "deep", "deep/cache", "deep/cache/flowers.tgz", "deep/cache/.flowers.lock",
    }  # fmt: skip
    assert (tmp_path / "secret").stat().st_nlink == 1


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (_archive(_member("flowers/bomb", size=5_000_000)), "unpacks to over 4 times its size"),
        (b"not a gzip file", "cannot be unpacked"),
        (ARCHIVE[:-200], "cannot be unpacked"),
        (_archive(files={}), "holds no file under flowers/"),
    ],
    ids=["bomb", "no archive", "cut short", "empty"],
)
def test_a_damaged_archive_is_one_clear_error(server: _Server, cache: Path, archive: bytes, message: str) -> None:
    server.answer = _send(archive)
    with pytest.raises(DownloadError, match=message):
        fetch(_data_set(server, archive), cache)
    assert {entry.name for entry in cache.iterdir()} == {"flowers.tgz", ".flowers.lock"}


def test_a_server_that_goes_silent_is_given_up(server: _Server, cache: Path) -> None:
    may_end = threading.Event()

    def send_half(request: http.server.BaseHTTPRequestHandler) -> None:
        _send(ARCHIVE[:1000], announced=len(ARCHIVE))(request)
        request.wfile.flush()
        may_end.wait(20)

    server.answer = send_half
    with pytest.raises(DownloadError, match=r"could not be fetched \(.*timed out"):
        fetch(_data_set(server), cache, timeout_s=0.2)
    may_end.set()
    _assert_nothing_was_kept(cache)


def test_rights_in_an_archive_are_not_obeyed(server: _Server, cache: Path) -> None:
    member = _member("flowers/daisy/tool.jpg", size=5)
    member.mode = 0o6777
    archive = _archive(member)
    server.answer = _send(archive)
    folder = fetch(_data_set(server, archive), cache)
    assert (folder / "daisy" / "tool.jpg").stat().st_mode & 0o7022 == 0


def test_a_pipe_in_place_of_the_archive_is_replaced(server: _Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    os.mkfifo(cache / "flowers.tgz")
    assert fetch(_data_set(server), cache) == cache / "flowers"
