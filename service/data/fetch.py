"""Download of a data set: its official archive, verified and unpacked safely in a cache folder."""

import gzip
import hashlib
import shutil
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import httpx
from pydantic import BaseModel

from service.errors import DownloadError, SettingsError
from service.files import UnfitFile, digest_file, read_regular
from service.http_client import Way

try:
    import fcntl
except ImportError:  # Windows has no such lock
    fcntl = None  # type: ignore[assignment]

Progress = Callable[[int, int], None]

_TIMEOUT_S = 30.0  # without a byte
_HEADERS = (("Accept-Encoding", "identity"),)  # the digest is of the archive as it is stored
_MOST_EXPANSION = 4  # unpacked bytes per byte of archive; photographs do not compress, a bomb does
_MANIFEST = ".unpacked.json"
_MAX_MANIFEST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class DataSet:
    """Archive (.tgz) at `url`, known to the byte. Its class folders lie under `folder`/."""

    name: str
    url: str
    size_bytes: int
    sha256: str
    folder: str


FLOWER_PHOTOS = DataSet(
    name="flower_photos",
    url="https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",
    size_bytes=228_813_984,
    sha256="4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
    folder="flower_photos",
)


class _Manifest(BaseModel):
    """Record in the unpacked folder: digest of the archive, and sizes of the files in bytes."""

    sha256: str
    files: dict[str, int]


def fetch(data_set: DataSet, cache: Path, progress: Progress | None = None, *, timeout_s: float = _TIMEOUT_S) -> Path:
    """Return the folder of class folders under `cache`. It is downloaded unless it is there and intact.

    An interrupted or damaged download is replaced. A folder that this program did not make is not. Files added to the
    folder do not count. A second process waits for the first. `progress` gets (bytes done, bytes in all). `timeout_s`
    is the limit of time without a byte. Raises `DownloadError` without network, for other bytes than expected, for an
    archive that leaves its folder, and for a full disk.
    """
    try:
        cache = cache.expanduser()
        target = cache / data_set.folder
        if not _is_unpacked(data_set, target):
            cache.mkdir(parents=True, exist_ok=True)
            with (cache / f".{data_set.name}.lock").open("w") as lock:
                if fcntl is not None:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                if not _is_unpacked(data_set, target):
                    _refuse_foreign(target)
                    archive = cache / f"{data_set.name}.tgz"
                    if not _is_intact(data_set, archive):
                        _download(data_set, archive, progress, timeout_s)
                    _unpack(data_set, archive, target)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder for ~
        raise DownloadError(
            f"{data_set.name} cannot be kept in {cache} ({error}). Make room, or choose another --cache."
        ) from error
    return target


def _download(data_set: DataSet, archive: Path, progress: Progress | None, timeout_s: float) -> None:
    part = archive.with_name(archive.name + ".part")
    digest, done = hashlib.sha256(), 0
    through = ""
    try:
        way = Way(httpx.URL(data_set.url))
        through = f" through the proxy of {way.proxy_variable}" if way.proxy_variable else ""
        with (
            way.open_client(headers=_HEADERS, timeout_s=timeout_s) as client,
            client.stream("GET", data_set.url, follow_redirects=True) as response,
            part.open("wb") as file,
        ):
            response.raise_for_status()
            for chunk in response.iter_raw():
                done += len(chunk)
                if done > data_set.size_bytes:
                    raise _failure(data_set, f"sent more than the expected {data_set.size_bytes} bytes.")
                digest.update(chunk)
                file.write(chunk)
                if progress is not None:
                    progress(done, data_set.size_bytes)
        if done < data_set.size_bytes:
            raise _failure(data_set, f"sent {done} bytes instead of {data_set.size_bytes}.")
        if digest.hexdigest() != data_set.sha256:
            raise _failure(data_set, f"sent other bytes, with sha256 {digest.hexdigest()}, not {data_set.sha256}.")
        part.replace(archive)
    except httpx.HTTPStatusError as error:
        raise _failure(data_set, f"answered with status {error.response.status_code}.") from error
    except SettingsError as error:
        raise _failure(data_set, f"could not be fetched. {error}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _failure(data_set, f"could not be fetched{through} ({error}).") from error
    finally:
        part.unlink(missing_ok=True)


def _failure(data_set: DataSet, what: str) -> DownloadError:
    return DownloadError(
        f"{data_set.url} {what} Try again, or download and unpack it yourself, and train on that folder with "
        f"`flowers train {data_set.folder} --name flowers`."
    )


def _unpack(data_set: DataSet, archive: Path, target: Path) -> None:
    beside = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        manifest = _Manifest(sha256=data_set.sha256, files=_extract(data_set, archive, beside))
        (beside / data_set.folder / _MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        (beside / data_set.folder).rename(target)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError) as error:
        raise DownloadError(f"{archive} cannot be unpacked ({error}). Delete it and try again.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _extract(data_set: DataSet, archive: Path, folder: Path) -> dict[str, int]:
    sizes: dict[str, int] = {}
    room = _MOST_EXPANSION * data_set.size_bytes
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            # The `data` filter strips a leading slash and allows links inside. A data set needs neither.
            if not (member.isreg() or member.isdir()) or path.parts[:1] != (data_set.folder,) or ".." in path.parts:
                raise DownloadError(
                    f"{archive} holds {member.name!a}, which is not a plain file or folder under "
                    f"{data_set.folder}/. Nothing of it was kept. Do not use this archive."
                )
            room -= member.size + tarfile.BLOCKSIZE
            if room < 0:
                raise DownloadError(
                    f"{archive} unpacks to over {_MOST_EXPANSION} times its size. Do not use this archive."
                )
            tar.extract(member, folder, filter="data")
            if member.isreg():
                sizes[str(path.relative_to(data_set.folder))] = member.size
    if not sizes:
        raise DownloadError(f"{archive} holds no file under {data_set.folder}/. Do not use this archive.")
    return sizes


def _is_intact(data_set: DataSet, archive: Path) -> bool:
    try:
        return digest_file(archive, data_set.size_bytes) == data_set.sha256
    except (FileNotFoundError, UnfitFile):
        return False


def _is_unpacked(data_set: DataSet, target: Path) -> bool:
    try:
        manifest = _Manifest.model_validate_json(read_regular(target / _MANIFEST, _MAX_MANIFEST_BYTES))
        complete = all((target / file).stat().st_size == size for file, size in manifest.files.items())
    except (OSError, ValueError):
        return False
    return complete and manifest.sha256 == data_set.sha256


def _refuse_foreign(target: Path) -> None:
    if target.exists() and not (target / _MANIFEST).exists():
        raise DownloadError(
            f"{target} is there already and was not made by this program. Train on it with "
            f"`flowers train {target}`, move it away, or choose another folder by --cache."
        )
