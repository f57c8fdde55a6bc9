"""`flowers runs`: the trainings of a folder."""

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from service.cli.terminal import complain, print_json, print_result
from service.settings import RunsSettings
from service.training.run_list import RunSummary, list_runs


def runs(
    *, settings: RunsSettings | None = None, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False
) -> int:
    """List the trainings in the folder of runs, the oldest first, unfinished ones, too.

    Args:
        as_json: Print a JSON list instead of a table.
    """
    settings = settings or RunsSettings()
    found = list_runs(settings.runs)
    if not found:
        complain(
            f"There is no training in {settings.runs.absolute()}. Begin one with `flowers train`, or name another "
            "folder with --runs."
        )
    if as_json:
        print_json([asdict(run) for run in found], indent=2)
    elif found:
        print_result(_to_table(found))
    return 0


def _to_table(found: list[RunSummary]) -> Table:
    table = Table("run", "version", "recipe", "photographs", "epochs", "accuracy", "95 % interval", "time")
    for run in found:
        version = f"{run.model} {run.version}" if run.version is not None else ""
        interval = (run.accuracy_low, run.accuracy_high)
        cells = (
            run.run,
            version if run.is_finished else f"{version} (unfinished)".strip(),
            run.recipe or "",
            "" if run.num_photographs is None else f"{run.num_photographs:,}",
            "" if run.num_epochs is None else str(run.num_epochs),
            "" if run.accuracy is None else f"{run.accuracy:.1%}",
            "" if None in interval else "{:.1f}-{:.1f} %".format(*(100 * (end or 0) for end in interval)),
            "" if run.seconds is None else _describe_time(run.seconds),
        )
        table.add_row(*map(Text, cells))
    return table


def _describe_time(seconds: float) -> str:
    """Write a time as hours, minutes and seconds, such as 1:02:03."""
    minutes, left = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{left:02}"
