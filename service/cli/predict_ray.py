"""`flowers predict --ray`: scores of many photographs, by the actors of a Ray cluster, as Parquet files."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from importlib.util import find_spec
from typing import Literal

from rich.text import Text

from service.cli.remote import fetch_store
from service.cli.terminal import captured_messages, open_messages, print_json, print_result, progress_bar
from service.errors import FlowersError, UsageError
from service.libraries import keep_ray_quiet
from service.scoring.actor import Job, digest_version
from service.scoring.manifest import Manifest, open_manifest
from service.scoring.parts import Part, PartResult, find_finished, split_parts
from service.scoring.sources import digest_paths, list_photographs
from service.scoring.storage import make_absolute
from service.settings import EngineSettings, RaySettings
from service.store.verify import VerifiedVersion, verify_version
from service.store.versions import find_version

_LIBRARIES = ("ray", "pyarrow", "fsspec")
_PACKAGES = ("ray[data]", "pyarrow", "fsspec")


def predict_with_ray(
    sources: Sequence[str],
    output: str | None,
    output_format: Literal["table", "json", "csv"],
    settings: EngineSettings,
    ray_settings: RaySettings,
) -> int:
    """Score the photographs of the sources into Parquet files in a folder. Print a summary.

    Returns 1 if a photograph has an error, else 0. Raises `UsageError`, `ScoringError`, and as `verify_version`.
    """
    if output is None:
        raise UsageError("--ray writes Parquet files. Name their folder with --output.")
    if output_format == "csv":
        raise UsageError("--ray writes Parquet files and prints a summary. Leave out --format csv.")
    if missing := [library for library in _LIBRARIES if find_spec(library) is None]:
        packages = " ".join(map(shlex.quote, _PACKAGES))
        raise UsageError(
            f"--ray needs the library {missing[0]}, which is not installed. "
            f"Run `{shlex.quote(sys.executable)} -m pip install {packages}`, or leave out the flag."
        )
    settings.wish.check()
    output = make_absolute(output)
    paths = list_photographs(sources)
    store = fetch_store(settings)
    verified = verify_version(find_version(store, settings.model).folder)
    manifest = _describe(sources, paths, verified, settings, ray_settings.rows_per_file)
    open_manifest(output, manifest)
    parts = split_parts(paths, manifest.rows_per_file)
    results = find_finished(output, parts)
    num_resumed = sum(result.num_photographs for result in results.values())
    left = [part for part in parts if part.number not in results]
    if left:
        job = Job(
            store.absolute(), manifest.model, manifest.version, manifest.version_digest,
            settings.wish, settings.limits, settings.decode_threads, output,
        )  # fmt: skip
        with open_messages() as messages, progress_bar("scoring", messages) as progress, _messages_of_failures():
            num_done = num_resumed
            for result in _score(left, job, ray_settings.ray_address):
                results[result.number] = result
                num_done += result.num_photographs
                progress(num_done, len(paths))
    assert results.keys() == {part.number for part in parts}, "every part has its file"
    return _print_summary(output, output_format, manifest, list(results.values()), num_resumed)


def _score(parts: Sequence[Part], job: Job, address: str) -> Iterator[PartResult]:
    keep_ray_quiet(address)
    from service.scoring.ray import connected, score_parts, size_actor  # here, as the library may be missing

    with connected(address):
        size = size_actor(job.wish.device, job.wish.threads)
        wish = replace(job.wish, threads=size.num_cpus, device=job.wish.device if size.num_gpus else "cpu")
        yield from score_parts(
            parts, replace(job, wish=wish, decode_threads=job.decode_threads or size.num_cpus + 1), size
        )


@contextmanager
def _messages_of_failures() -> Iterator[None]:
    """Hold back what Ray writes to standard error, unless it fails in a way that has no sentence of ours."""
    failure: FlowersError | None = None
    with captured_messages(), redirect_stdout(sys.stderr):  # Ray tells of lost nodes on standard output
        try:
            yield
        except FlowersError as error:
            failure = error
    if failure is not None:
        raise failure


def _describe(
    sources: Sequence[str],
    paths: Sequence[str],
    verified: VerifiedVersion,
    settings: EngineSettings,
    rows_per_file: int,
) -> Manifest:
    return Manifest(
        sources=tuple(map(make_absolute, sources)),
        source_digest=digest_paths(paths),
        num_photographs=len(paths),
        rows_per_file=rows_per_file,
        model=settings.model,
        version=int(verified.folder.name),
        version_digest=digest_version(verified),
        class_names=tuple(verified.metadata.class_names),
        device=settings.device,
        engine=settings.engine,
        precision=settings.precision,
        max_image_bytes=settings.max_image_bytes,
        max_image_pixels=settings.max_image_pixels,
    )


def _print_summary(
    output: str, output_format: str, manifest: Manifest, results: Sequence[PartResult], num_resumed: int
) -> int:
    num_photographs = sum(result.num_photographs for result in results)
    num_errors = sum(result.num_errors for result in results)
    if output_format == "json":
        document = {
            "output": output,
            "model": {"name": manifest.model, "version": manifest.version},
            "num_photographs": num_photographs,
            "num_errors": num_errors,
            "num_files": len(results),
            "num_resumed": num_resumed,
        }
        print_json(document, indent=2)
    else:
        resumed = f", of which {num_resumed:,} were scored before" if num_resumed else ""
        print_result(
            Text(
                f"{output} has the scores by version {manifest.version} of {manifest.model}. "
                f"Photographs: {num_photographs:,}{resumed}. Errors: {num_errors:,}. Files: {len(results):,}."
            )
        )
    return 1 if num_errors else 0
