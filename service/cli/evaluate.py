"""`flowers evaluate FOLDER`: measure a version on a folder of photographs."""

import os
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.text import Text

from service.cli.predict import find_files
from service.cli.remote import fetch_store
from service.cli.terminal import complain, print_json, print_result, progress_bar
from service.data.folder import read_folder
from service.data.parts import PARTS
from service.engines.open_version import ServedVersion, open_stored
from service.errors import InvalidParameter, SettingsError
from service.evaluation.copies import check_copies_folder
from service.evaluation.folder import FolderEvaluation, evaluate_folder, find_differences
from service.evaluation.mistakes import copy_photographs, write_mistakes
from service.evaluation.none_of_these import NoneOfThese, describe_none_of_these, measure_none_of_these
from service.evaluation.seen import describe_seen
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
    mistakes: Path | None = None,
    copy_mistakes: Path | None = None,
    none_of_these: Path | None = None,
    label_errors: Path | None = None,
    settings: EngineSettings | None = None,
) -> int:
    """Measure accuracy, confusions and calibration of a version on a folder of class folders.

    Photographs that the version has learned from are recognised by their pixels, and counted apart.

    Args:
        folder: Folder with a folder for each class to measure. Classes of the model may be missing. Of a split folder
            all parts are measured together.
        version: Number of the version. Without it, the version that is served.
        part: Part of the split that the version was trained with, or all photographs.
        check: Exit with 1 unless the version's metadata says the same of that part. The default precision is float32.
        as_json: Print JSON instead of tables.
        report: File for a report in self-contained HTML.
        mistakes: File for a CSV of the wrong answers, most confident first.
        copy_mistakes: New or empty folder for copies of the photographs with wrong answers, by truth and answer.
        none_of_these: Folder of images that show none of the classes. The share of unsure answers is measured.
        label_errors: File for a CSV of the photographs, the most suspect label first. The version does not judge them.
            A last layer on pretrained features does, by a cross-validation.
    """
    settings = settings or EngineSettings()
    others = _check_places(folder, report, mistakes, copy_mistakes, none_of_these, label_errors)
    photographs = read_folder(folder, may_lack_classes=True)
    wish = settings.wish
    if check and wish.precision == "auto":  # the metadata states the accuracy in float32, to the photograph
        wish = replace(wish, precision="float32")
    with closing(open_stored(fetch_store(settings, version), settings.model, wish, version)) as opened:
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
        headline, note = result.headline, describe_seen(opened.version, result.counted)
        measured = _measure_others(opened, others, headline, settings) if others else None
        if report is not None:
            _write_report(report, title, note, headline, opened, settings.limits)
    done = _keep_mistakes(result, mistakes, copy_mistakes)
    if label_errors is not None:
        from service.cli.suspects import list_label_errors  # needs what training needs

        done.append(list_label_errors(photographs, label_errors, settings.limits))
    differences = find_differences(stated, result.evaluation) if stated else ()
    if as_json:
        print_json(_document(opened, part, result, stated, differences, measured), indent=2)
        if result.counted and result.counted.is_all_learned:
            complain(note)
    else:
        print_result(render_evaluation(headline.evaluation, title, note))
        if measured is not None:
            print_result(Text(describe_none_of_these(measured)))
        for sentence in done:
            print_result(Text(sentence))
        if stated and not differences:
            print(f"The metadata of version {opened.version} says the same of part {part}.")
    unscored = (*result.unscored, *(measured.unscored if measured else ()))
    complaints = [f"{scored.path}: {scored.error}" for scored in unscored]
    for complaint in (*complaints, *differences):
        complain(complaint)
    return 1 if complaints or differences else 0


def _check_places(
    folder: Path,
    report: Path | None,
    mistakes: Path | None,
    copy_mistakes: Path | None,
    none_of_these: Path | None,
    label_errors: Path | None,
) -> list[Path]:
    """Refuse places that cannot be written or read, before anything is measured. Return the images of none of these."""
    if report is not None and find_spec("matplotlib") is None:
        raise SettingsError(f"--report draws with matplotlib, which is not installed. Run `{install_command()}`.")
    for flag, path in (("--report", report), ("--mistakes", mistakes), ("--label-errors", label_errors)):
        if path is not None and not _is_writable(path):
            raise SettingsError(f"{flag} is {str(path)!r}. Name a file, in a folder that exists and can be written to.")
    if copy_mistakes is not None:
        check_copies_folder(copy_mistakes, folder, "--copy-mistakes")
    if none_of_these is None:
        return []
    if not none_of_these.is_dir():
        raise SettingsError(f"--none-of-these is {str(none_of_these)!r}, and no folder. Name a folder of images.")
    return find_files([none_of_these])


def _is_writable(file: Path) -> bool:
    if file.is_dir() or not file.parent.is_dir():
        return False
    return os.access(file if file.exists() else file.parent, os.W_OK)


def _measure_others(
    opened: ServedVersion, files: list[Path], evaluated: FolderEvaluation, settings: EngineSettings
) -> NoneOfThese:
    with progress_bar("none of these") as progress:
        return measure_none_of_these(
            opened,
            files,
            evaluated.scored,
            settings.limits,
            decode_threads=settings.decode_threads,
            progress=progress,
        )


def _keep_mistakes(result: FolderEvaluation, file: Path | None, folder: Path | None) -> list[str]:
    class_names, sentences = result.evaluation.class_names, []
    if file is not None:
        sentences.append(f"{write_mistakes(file, result.answers, class_names)} mistakes are listed in {file}.")
    if folder is not None:
        sentences.append(f"{copy_photographs(folder, result.answers, class_names)} mistakes are copied to {folder}.")
    return sentences


def _write_report(
    path: Path, title: str, note: str, result: FolderEvaluation, opened: ServedVersion, limits: ImageLimits
) -> None:
    from service.evaluation.html_report import render_page  # draws with matplotlib, which serving does not need

    page = render_page(title, result.evaluation, result.answers, opened.rule, limits, note=note)
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
    opened: ServedVersion,
    part: str,
    result: FolderEvaluation,
    stated: PartMetrics | None,
    differences: tuple[str, ...],
    measured: NoneOfThese | None,
) -> dict[str, Any]:
    counted = result.counted
    return {
        "model": opened.model,
        "version": opened.version,
        "part": part,
        **result.evaluation.to_dict(),
        "absent_classes": list(result.evaluation.absent_classes),
        **(counted.to_dict() if counted else {"unseen": None, "learned": None}),
        "none_of_these": measured.to_dict() if measured else None,
        "unscored": [{"file": str(scored.path), "error": str(scored.error)} for scored in result.unscored],
        "checked": stated is not None,
        "differences": list(differences),
    }
