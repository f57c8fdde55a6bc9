"""Publishing of a version or a candidate: written beside, checked, brought to the disk, renamed.

It is whole or absent.
"""

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import InvalidVersion, PublishError
from service.files import bring_to_disk, digest_file
from service.store.layout import (
    CANDIDATES_FOLDER,
    PUBLISHING_PREFIX,
    REMOVING_PREFIX,
    SHA256SUMS_FILE,
    candidates_folder,
    check_model_name,
    model_folder,
)
from service.store.verify import check_draft, list_files, write_sums
from service.store.versions import next_version

_LEFTOVER_AGE_S = 24 * 3600
_IS_THERE = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)  # of a rename to a name that another has


@dataclass
class Draft:
    """Version being written. Its files go into `folder`. It has no `version` before it is published.

    `is_candidate` may be set until the block ends. No service serves a candidate. After the block `folder` is the
    published one.
    """

    folder: Path
    is_candidate: bool = False
    version: int = field(init=False)


@contextmanager
def publish_version(store: Path, model: str, *, least_version: int = 1) -> Iterator[Draft]:
    """Publish what the `with` block writes into `draft.folder` as the next version of `model`.

    Its number is at least `least_version`.

    At the end of the block SHA256SUMS is written. The draft is verified, brought to the disk and renamed to its number.
    With `draft.is_candidate` it becomes a candidate. Versions and candidates share one counter. After an exception
    nothing is left. A process that dies leaves a hidden folder. The next publisher deletes it once it is a day old.
    Store and model are made if they are missing.

    Raises `InvalidParameter` for a name that no model can have. Raises `PublishError` if the disk is full or not
    writable, or if the draft is no valid version.
    """
    check_model_name(model)
    folder = model_folder(store, model)
    draft = None
    try:
        _clear_leftovers(folder)
        draft = Draft(_make_draft_folder(folder))
        yield draft
        _complete(draft.folder)
        if draft.is_candidate:
            candidates_folder(store, model)  # raises for a link
        _place(draft, folder, least_version)
    except InvalidVersion as error:
        raise PublishError(f"The new version of {model} would not be valid. {error}") from error
    except OSError as error:
        raise PublishError(
            f"The new version of {model} could not be written to {store} ({error.strerror or error}). "
            "Nothing was published. Make room or allow writing there, and publish again."
        ) from error
    finally:
        if draft is not None and draft.folder.name.startswith(PUBLISHING_PREFIX):
            _discard(draft.folder)


def check_can_publish(store: Path, model: str) -> None:
    """Check before a training that `publish_version` could begin. Raises as that."""
    check_model_name(model)
    try:
        _discard(_make_draft_folder(model_folder(store, model)))
    except OSError as error:
        raise PublishError(
            f"The store {store} cannot be written ({error.strerror or error}). Allow writing there, or name "
            "another with --model-store."
        ) from error


def _make_draft_folder(folder: Path) -> Path:
    """Make a folder beside the versions. A rename is atomic on one file system only."""
    draft = folder / f"{PUBLISHING_PREFIX}{secrets.token_hex(8)}"
    draft.mkdir(parents=True)  # not `mkdtemp`, which shuts other users out
    return draft


def _discard(draft: Path) -> None:
    shutil.rmtree(draft, ignore_errors=True)
    for folder in (draft.parent / CANDIDATES_FOLDER, draft.parent):
        with suppress(OSError):
            folder.rmdir()  # if nothing else is in it


def _clear_leftovers(folder: Path) -> None:
    for prefix in (PUBLISHING_PREFIX, REMOVING_PREFIX):
        for path in folder.glob(f"{prefix}*"):
            with suppress(FileNotFoundError):  # another process was quicker
                if time.time() - path.stat().st_mtime > _LEFTOVER_AGE_S:
                    shutil.rmtree(path, ignore_errors=True)


def _complete(draft: Path) -> None:
    """Write SHA256SUMS, verify the draft, and bring it to the disk."""
    (draft / SHA256SUMS_FILE).parent.mkdir(exist_ok=True)
    digests = {file: digest_file(draft / file) for file in set(list_files(draft)) - {SHA256SUMS_FILE}}
    (draft / SHA256SUMS_FILE).write_bytes(write_sums(digests))
    check_draft(draft)
    for path in (draft, *draft.rglob("*")):
        bring_to_disk(path)


def _place(draft: Draft, folder: Path, least_version: int) -> None:
    """Rename the draft to the next free number, and bring the new names to the disk."""
    home = folder / CANDIDATES_FOLDER if draft.is_candidate else folder
    version = _reserve_number(draft, folder, above=least_version - 1)
    while True:
        try:
            home.mkdir(exist_ok=True)
        except FileExistsError:
            if os.path.lexists(home):  # no folder
                raise
            continue  # it was tidied away between two looks
        try:
            draft.folder = draft.folder.rename(home / str(version))
            break
        except FileNotFoundError:  # the last candidate was taken, and the folder went with it
            if not draft.folder.is_dir():
                raise
        except OSError as error:  # a folder was copied there meanwhile
            if error.errno not in _IS_THERE:
                raise
            version = _reserve_number(draft, folder, above=version)
    draft.version = version
    for changed in dict.fromkeys((home, folder, folder.parent)):
        bring_to_disk(changed)


def _reserve_number(draft: Draft, folder: Path, above: int) -> int:
    """Put the next free number into the draft's hidden name, and return it.

    Versions and candidates lie in two folders, so a rename into one of them overlooks the other. No two drafts have
    the same hidden name. A number that is free while a draft has it in its name stays free for that draft.
    """
    version = above
    while True:
        version = max(version + 1, next_version(folder))
        try:
            draft.folder = draft.folder.rename(folder / f"{PUBLISHING_PREFIX}{version}")
        except OSError as error:
            if error.errno not in _IS_THERE:
                raise
        else:
            if version >= next_version(folder):
                return version
