"""Candidates of a model, which no service serves, and how one becomes a version."""

import errno
from contextlib import suppress
from pathlib import Path

from service.errors import UsageError, VersionNotFound
from service.files import bring_to_disk
from service.store.layout import version_command, version_folder
from service.store.manage import changing, tidy_candidates
from service.store.verify import verify_version
from service.store.versions import find_version

_IS_THERE = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


def take_candidate(store: Path, model: str, version: int) -> None:
    """Verify every byte of a candidate and make it the version of its number.

    A reader finds it whole, in one of the two places. A service serves it if no newer version is sound and none is
    pinned.

    Raises `UsageError` if the model has a version of this number, `InvalidVersion` for a damaged candidate or a link,
    `VersionNotFound` if another process takes it first, `StoreError` if the store cannot be written, or as
    `find_version`.
    """
    candidate = find_version(store, model, version)
    target = version_folder(store, model, version)
    if not candidate.is_candidate:
        raise _exists_already(model, version)
    verify_version(candidate.folder)
    with changing(target.parent):
        try:
            candidate.folder.rename(target)  # one rename, on one file system
        except FileNotFoundError as error:
            raise VersionNotFound(
                f"Candidate {version} of {model} was taken or removed meanwhile. Look at `flowers models list`."
            ) from error
        except OSError as error:
            if error.errno in _IS_THERE:
                raise _exists_already(model, version) from error
            raise
        tidy_candidates(target.parent)
        for folder in (candidate.folder.parent, target.parent):
            with suppress(FileNotFoundError):  # it was tidied away
                bring_to_disk(folder)


def _exists_already(model: str, version: int) -> UsageError:
    return UsageError(
        f"Model {model} has a version {version} already. Serve it with `{version_command('use', model, version)}`, "
        "or remove it before you take a candidate of its number."
    )
