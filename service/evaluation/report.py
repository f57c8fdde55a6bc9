"""An evaluation for people: three lines, a table per class, the confusion matrix. Programs take `to_dict`."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from service.evaluation.metrics import Evaluation


def render_evaluation(evaluation: Evaluation, title: str) -> RenderableType:
    """The whole report; `title` says of what."""
    return Group(
        Text(title, style="bold"),
        Text(summarise(evaluation)),
        _class_table(evaluation),
        _confusion_table(evaluation),
    )


def summarise(evaluation: Evaluation) -> str:
    """Accuracy, calibration error and log loss, in three lines. A fourth names absent classes."""
    interval = f"{evaluation.accuracy_low:.1%} to {evaluation.accuracy_high:.1%}"
    counts = f"{evaluation.num_correct} of {evaluation.num_photographs} photographs"
    return (
        f"accuracy           {evaluation.accuracy:.1%}, {counts}; 95 % interval {interval}\n"
        f"calibration error  {evaluation.expected_calibration_error:.1%}; "
        f"a perfectly calibrated network: up to {evaluation.calibration_error_by_chance:.1%} by chance\n"
        f"log loss           {evaluation.log_loss:.3f}{_describe_absent(evaluation)}"
    )


def _describe_absent(evaluation: Evaluation) -> str:
    absent, num_classes = evaluation.absent_classes, len(evaluation.class_names)
    if not absent:
        return ""
    return (
        f"\nclasses            {num_classes - len(absent)} of the model's {num_classes}; "
        f"there are no photographs of {', '.join(absent)}"
    )


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
