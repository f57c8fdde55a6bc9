"""`flowers evaluate FOLDER`: measure a version on a folder of photographs."""

from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from service.cli.terminal import complain, print_json, print_result, progress_bar
from service.data.folder import read_folder
from service.data.parts import PARTS
from service.engines.open_version import ServedVersion, open_stored
from service.errors import InvalidParameter, SettingsError
from service.evaluation.folder import FolderEvaluation, evaluate_folder, find_differences
from service.evaluation.text_report import render_evaluation
from service.imaging.limits import ImageLimits
from service.installation import install_command
from service.settings import EngineSettings
from service.store.metadata import PartMetrics


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
    """Measure accuracy, confusions and calibration of a version on a folder of class folders.

    Args:
        folder: Folder with a folder for each class to measure. Classes of the model may be missing.
        version: Number of the version. Without it, the version that is served.
        part: Part of the split that the version was trained with, or all photographs.
        check: Exit with 1 unless the version's metadata says the same of that part. The default precision is float32.
        as_json: Print JSON instead of tables.
        report: File for a report in self-contained HTML.
    """
    settings = settings or EngineSettings()
    if report is not None:
        _check_report(report)
    photographs = read_folder(folder, may_lack_classes=True)
    wish = settings.wish
    if check and wish.precision == "auto":  # the metadata states the accuracy in float32, to the photograph
        wish = replace(wish, precision="float32")
    with closing(open_stored(settings.model_store, settings.model, wish, version)) as opened:
        stated = _find_stated(opened, part) if check else None
        with progress_bar(f"version {opened.version}") as progress:
            result = evaluate_folder(
                opened,
                photographs,
                settings.limits,
                part=None if part == "all" else part,
                decode_threads=settings.decode_threads,
                progress=progress,
            )
        title = f"{opened.model}, version {opened.version}, on {folder} ({part})"
        if report is not None:
            _write_report(report, title, result, opened, settings.limits)
    differences = find_differences(stated, result.evaluation) if stated else ()
    if as_json:
        print_json(_document(opened, part, result, stated, differences), indent=2)
    else:
        print_result(render_evaluation(result.evaluation, title))
        if stated and not differences:
            print(f"The metadata of version {opened.version} says the same of part {part}.")
    complaints = [f"{scored.path}: {scored.error}" for scored in result.unscored]
    for complaint in (*complaints, *differences):
        complain(complaint)
    return 1 if complaints or differences else 0


def _check_report(path: Path) -> None:
    if find_spec("matplotlib") is None:
        raise SettingsError(f"--report draws with matplotlib, which is not installed. Run `{install_command()}`.")
    if path.is_dir() or not path.parent.is_dir():
        raise SettingsError(f"--report is {str(path)!r}. Name a file, in a folder that exists.")


def _write_report(path: Path, title: str, result: FolderEvaluation, opened: ServedVersion, limits: ImageLimits) -> None:
    from service.evaluation.html_report import render_page  # draws with matplotlib, which serving does not need

    page = render_page(title, result.evaluation, result.answers, opened.rule, limits)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"The report cannot be written to {path} ({error.strerror}). Name another file.") from error


def _find_stated(opened: ServedVersion, part: str) -> PartMetrics:
    for metrics in opened.metadata.metrics:
        if metrics.part == part:
            return metrics
    stated = ", ".join(metrics.part for metrics in opened.metadata.metrics if metrics.part in PARTS) or "no part"
    raise InvalidParameter(
        f"Version {opened.version} states metrics for {stated}, not for {part}. Name one with --part."
    )


def _document(
    opened: ServedVersion, part: str, result: FolderEvaluation, stated: PartMetrics | None, differences: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "model": opened.model,
        "version": opened.version,
        "part": part,
        **result.evaluation.to_dict(),
        "absent_classes": list(result.evaluation.absent_classes),
        "unscored": [{"file": str(scored.path), "error": str(scored.error)} for scored in result.unscored],
        "checked": stated is not None,
        "differences": list(differences),
    }
