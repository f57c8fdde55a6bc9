"""`flowers evaluate FOLDER`: how good a version is on a folder of photographs."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from service.cli.terminal import print_json, print_result, printable, progress_bar
from service.data.folder import read_folder
from service.data.split import PARTS
from service.errors import InvalidParameter, SettingsError
from service.evaluation.folder import FolderEvaluation, evaluate_folder, find_differences
from service.evaluation.local_model import LocalModel, open_local_model
from service.evaluation.text_report import render_evaluation
from service.imaging.pixels import ImageLimits
from service.installation import install_command
from service.settings import EngineSettings
from service.store.metadata import Metrics


def evaluate(
    folder: Path,
    /,
    *,
    version: Annotated[int | None, Parameter(name="--version")] = None,
    part: Literal["all", "train", "validation", "test"] = "all",
    check: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    report: Path | None = None,
    settings: EngineSettings | None = None,
) -> int:
    """Measure a version on a folder of class folders: accuracy, per class, confusions, calibration.

    Args:
        folder: holds a folder for each class to be measured. Classes of the model may be missing.
        version: its number; without one, the version that is served.
        part: all photographs, or one part of the split that the version was trained with.
        check: exit with 1 unless the version's metadata says the same of that part; in float32, unless told otherwise.
        as_json: print JSON instead of tables.
        report: also write a page, self-contained HTML, to this file.
    """
    settings = settings or EngineSettings()
    if report is not None:
        _check_report(report)
    photographs = read_folder(folder, may_lack_classes=True)
    with open_local_model(
        settings.model_store,
        settings.model,
        version,
        engine=settings.engine,
        device=settings.device,
        # The metadata states what the network is worth in float32, to the photograph.
        precision="float32" if check and settings.precision == "auto" else settings.precision,
        threads=settings.engine_threads,
        gpu_memory_limit_mb=settings.gpu_memory_limit_mb,
    ) as local:
        stated = _find_stated(local, part) if check else None
        limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)
        with progress_bar(f"version {local.stored.version}") as progress:
            result = evaluate_folder(
                local,
                photographs,
                limits,
                part=None if part == "all" else part,
                decode_threads=settings.decode_threads,
                progress=progress,
            )
        title = f"{local.stored.model}, version {local.stored.version}, on {folder} ({part})"
        if report is not None:
            _write_report(report, title, result, local, limits)
    differences = find_differences(stated, result.evaluation) if stated else ()
    if as_json:
        print_json(_document(local, part, result, stated, differences), indent=2)
    else:
        print_result(render_evaluation(result.evaluation, title))
        if stated and not differences:
            print(f"The metadata of version {local.stored.version} says the same of part {part}.")
    complaints = [f"{scored.path}: {scored.error}" for scored in result.unscored]
    for complaint in (*complaints, *differences):
        print(f"flowers: {printable(complaint)}", file=sys.stderr)
    return 1 if complaints or differences else 0


def _check_report(path: Path) -> None:
    """Refuse before minutes of measuring what could not be written after them."""
    if find_spec("matplotlib") is None:
        raise SettingsError(f"--report draws with matplotlib: run `{install_command()}`")
    if path.is_dir() or not path.parent.is_dir():
        raise SettingsError(f"--report is {str(path)!r}: name a file, in a folder that exists")


def _write_report(path: Path, title: str, result: FolderEvaluation, local: LocalModel, limits: ImageLimits) -> None:
    from service.evaluation.html_report import render_page  # draws with matplotlib, which serving does not need

    page = render_page(title, result.evaluation, result.answers, local.rule, limits)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"the report cannot be written to {path}: {error.strerror}") from error


def _find_stated(local: LocalModel, part: str) -> Metrics:
    for metrics in local.metadata.metrics:
        if metrics.part == part:
            return metrics
    stated = ", ".join(metrics.part for metrics in local.metadata.metrics if metrics.part in PARTS) or "no part"
    raise InvalidParameter(
        f"version {local.stored.version} states metrics for {stated}, not for {part}: name one with --part"
    )


def _document(
    local: LocalModel,
    part: str,
    result: FolderEvaluation,
    stated: Metrics | None,
    differences: tuple[str, ...],
) -> dict[str, Any]:
    return {
        "model": local.stored.model,
        "version": local.stored.version,
        "part": part,
        **result.evaluation.to_dict(),
        "absent_classes": list(result.evaluation.absent_classes),
        "unscored": [{"file": str(scored.path), "error": str(scored.error)} for scored in result.unscored],
        "checked": stated is not None,
        "differences": list(differences),
    }
