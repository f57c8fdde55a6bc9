"""Actor of a cluster: it opens the version once, and scores part after part."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from service.engines.open_version import ServedVersion, open_stored
from service.engines.wish import EngineWish
from service.errors import FlowersError, InvalidVersion
from service.evaluation.score import score_each
from service.files import digest_bytes
from service.imaging.limits import ImageLimits
from service.scoring.parts import Part, PartResult, read_result, write_part
from service.scoring.storage import read_image
from service.store.verify import VerifiedVersion, write_sums


@dataclass(frozen=True)
class Job:
    """Description of the work that every actor gets.

    `store` and `output` are absolute, and mean the same on every node. `version_digest` is the sha256 of the version's
    SHA256SUMS. `decode_threads` is a number of threads, 1 or more.
    """

    store: Path
    model: str
    version: int
    version_digest: str
    wish: EngineWish
    limits: ImageLimits
    decode_threads: int
    output: str


def digest_version(verified: VerifiedVersion) -> str:
    """Return the sha256 of the version's SHA256SUMS, as it would be written. Equal ones mean equal files."""
    return digest_bytes(write_sums(verified.digests))


def pack_part(part: Part) -> dict[str, Any]:
    """Return a part as a row of a dataset. A path need not be UTF-8."""
    return {"number": part.number, "paths": b"\0".join(map(os.fsencode, part.paths))}


class PartScorer:
    """Actor that scores packed parts. It holds at most two batches of squares, as `score_each` says."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Score a packed part, and write its file unless it is whole already.

        Returns:
            The fields of its `PartResult` and `failure`, a text. It is empty unless the version cannot be opened, has
            other files than the job's, or the storage, the engine or the memory failed. Ray does not bring our
            errors to the caller.
        """
        part = Part(int(row["number"]), tuple(map(os.fsdecode, bytes(row["paths"]).split(b"\0"))))
        try:
            return {**vars(self._score(part)), "failure": ""}
        except FlowersError as error:
            return {**vars(PartResult(part.number, 0, 0)), "failure": str(error)}

    def _score(self, part: Part) -> PartResult:
        job, opened = self._job, self._opened
        result = read_result(job.output, part)  # of a task that is repeated after a node was lost
        if result is None:
            numbers = [Path(str(number)) for number in range(len(part.paths))]  # a `Path` cannot hold every URL
            scored = score_each(
                opened.engine,
                numbers,
                opened.rule,
                job.limits,
                decode_threads=job.decode_threads,
                read=lambda number: read_image(part.paths[int(number.name)], job.limits),
            )
            result = write_part(job.output, part, scored, opened.metadata.class_names, job.version)
        return result

    @cached_property
    def _opened(self) -> ServedVersion:
        job = self._job
        opened = open_stored(job.store, job.model, job.wish, job.version)
        if digest_version(opened.verified) != job.version_digest:
            opened.close()
            raise InvalidVersion(
                f"Version {job.version} in {job.store} of a node has other files than the one that the job began with. "
                "Copy the store anew to each node."
            )
        return opened
