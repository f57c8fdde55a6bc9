"""`flowers models pack` and `pull`: versions that travel between machines."""

import re
import shlex
import tempfile
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from service.cli.leaving import interrupted_by_sigterm
from service.cli.remote import fetch_store, require_folder
from service.cli.terminal import print_json, printable, progress_bar
from service.cli.version_number import read_number
from service.errors import UsageError
from service.files import digest_file
from service.settings import StoreSettings
from service.store.archive import MAX_ARCHIVE_BYTES, PulledVersion, pack_version, pull_version
from service.store.layout import version_command
from service.store.versions import find_version

AsJson = Annotated[bool, Parameter(name="--json", negative="")]


def pack(
    version: str, /, *, settings: StoreSettings | None = None, to: Path | None = None, as_json: AsJson = False
) -> int:
    """Write a version or a candidate into an archive for another machine, after verifying it.

    The last line is the command for the other machine, with the digest. Send the digest another way than the archive.

    Args:
        version: Its number.
        to: The archive to write. The default is MODEL-VERSION.tar.gz in the current folder.
        as_json: Print a JSON object instead of sentences.
    """
    settings = settings or StoreSettings()
    number, model = read_number(version), settings.model
    target = to or Path(f"{model}-{number}.tar.gz")
    pack_version(find_version(fetch_store(settings, number), model, number), target)
    sha256, num_bytes = digest_file(target), target.stat().st_size
    if as_json:
        document = {"model": model, "version": number, "file": str(target), "sha256": sha256, "size_bytes": num_bytes}
        print_json(document)
    else:
        print(printable(f"Version {number} of {model} is packed in {target}, {num_bytes / 1e6:.1f} MB."))
        print(printable(f"flowers models pull {shlex.quote(str(target))} --sha256 {sha256}"))
    return 0


def pull(
    source: str,
    /,
    *,
    sha256: str,
    settings: StoreSettings | None = None,
    take: Annotated[bool | None, Parameter(negative="--no-take")] = None,
    as_json: AsJson = False,
) -> int:
    """Take a packed version into the store. A SavedModel is a program, so pull from people you trust.

    The first version of a model is served. A later one becomes a candidate. The version keeps its number, unless the
    store is past it.

    Args:
        source: Archive that `flowers models pack` has written, as a file or an https URL.
        sha256: Digest of the archive, 64 hexadecimal digits. Get it another way than the archive.
        take: Make it a version that services serve, or with --no-take a candidate.
        as_json: Print a JSON object instead of sentences.
    """
    from service.cli.download import copy_archive  # here, because no other verb needs HTTP

    settings = settings or StoreSettings()
    if not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise UsageError(f"{sha256[:80]!r} is no sha256. Give 64 hexadecimal digits, as `flowers models pack` prints.")
    model = settings.model if "model" in settings.model_fields_set else None
    store = require_folder(settings.model_store, "models pull")
    with interrupted_by_sigterm(), tempfile.TemporaryFile() as archive, progress_bar("pulling bytes") as progress:
        copy_archive(source, archive, sha256.lower(), max_bytes=MAX_ARCHIVE_BYTES, progress=progress)
        pulled = pull_version(store, archive, model=model, take=take)
    stored = pulled.stored
    if as_json:
        state = "candidate" if stored.is_candidate else "version"
        print_json({"model": stored.model, "version": stored.version, "state": state, "is_new": pulled.is_new})
    else:
        print(_describe_pulled(pulled))
    return 0


def _describe_pulled(pulled: PulledVersion) -> str:
    stored = pulled.stored
    kind = "Candidate" if stored.is_candidate else "Version"
    done = f"{kind} {stored.version} of {stored.model} is {'pulled' if pulled.is_new else 'in the store already'}."
    if stored.is_candidate:
        return f"{done} No service serves it. Take it with `{version_command('take', stored.model, stored.version)}`."
    return f"{done} Next: flowers serve --model {stored.model}"
