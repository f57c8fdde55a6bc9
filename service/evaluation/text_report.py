"""Report of an evaluation on a terminal: three lines, a table per class, the confusions."""

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from service.evaluation.metrics import Evaluation

_WIDEST_MATRIX = 20  # classes above which the most frequent confusions are listed instead of a matrix


def render_evaluation(evaluation: Evaluation, title: str, note: str = "") -> RenderableType:
    """Render the whole report. The note stands below the title, in bold."""
    return Group(
        Text(title, style="bold"),
        *([Text(note, style="bold")] if note else []),
        Text(summarise(evaluation)),
        _class_table(evaluation),
        _confusion_table(evaluation) if len(evaluation.class_names) <= _WIDEST_MATRIX else _confusion_list(evaluation),
    )


def summarise(evaluation: Evaluation) -> str:
    """Write accuracy, calibration error and log loss in three lines. A fourth names absent classes."""
    interval = f"{evaluation.accuracy_low:.1%} to {evaluation.accuracy_high:.1%}"
    counts = f"{evaluation.num_correct} of {evaluation.num_photographs} photographs"
    lines = [
        f"accuracy           {evaluation.accuracy:.1%}, {counts}, 95 % interval {interval}",
        f"calibration error  {evaluation.expected_calibration_error:.1%}, "
        f"of a perfectly calibrated network up to {evaluation.calibration_error_by_chance:.1%} by chance",
        f"log loss           {evaluation.log_loss:.3f}",
    ]
    if absent := evaluation.absent_classes:
        num_classes = len(evaluation.class_names)
        present = f"{num_classes - len(absent)} of the model's {num_classes}"
        lines.append(f"classes            {present}, without photographs of {', '.join(absent)}")
    return "\n".join(lines)


def _class_table(evaluation: Evaluation) -> Table:
    table = Table("class")
    for column in ("precision", "recall", "F1", "photographs"):
        table.add_column(column, justify="right")
    for metrics in evaluation.per_class:
        table.add_row(Text(metrics.label), *metrics.shares, str(metrics.support))
    return table


def _confusion_table(evaluation: Evaluation) -> Table:
    table = Table("truly | predicted")
    for label in evaluation.class_names:
        table.add_column(Text(label), justify="right")
    for index, (label, counts) in enumerate(zip(evaluation.class_names, evaluation.confusion, strict=True)):
        cells = (Text(str(count), style="bold" if column == index else "") for column, count in enumerate(counts))
        table.add_row(Text(label), *cells)
    return table


def _confusion_list(evaluation: Evaluation) -> Table:
    table = Table("truly", "predicted")
    table.add_column("photographs", justify="right")
    wrong = evaluation.confusion * (1 - np.eye(len(evaluation.confusion), dtype=np.int64))
    names = evaluation.class_names
    for place in np.argsort(-wrong, axis=None, kind="stable")[:_WIDEST_MATRIX]:
        true, predicted = divmod(int(place), len(names))
        if wrong[true, predicted]:
            table.add_row(Text(names[true]), Text(names[predicted]), str(wrong[true, predicted]))
    return table
