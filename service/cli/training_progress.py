"""Progress and result of a training, as the verb `train` shows them."""

from json import dumps
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.terminal import make_progress, print_result, printable
from service.store.layout import version_command
from service.training.observer import Observer
from service.training.plan import NETWORK_LEARNS, Plan, describe_seconds

if TYPE_CHECKING:
    from service.data.check import DataCheck
    from service.data.split import Split
    from service.training.checkpoint import Epoch
    from service.training.gate import Verdict
    from service.training.train import Trained


class ProgressObserver(Observer):
    """Observer that shows a training on standard error: bars while it moves, one line per epoch to keep."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = make_progress(console)
        self._stage = "loading TensorFlow"
        self._task = self._bars.add_task(self._stage, total=None, figures="")
        self._plan: Plan | None = None

    def __enter__(self) -> "ProgressObserver":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    @property
    def at(self) -> str:
        """Name of the stage at work, such as "epoch 7 of 40"."""
        return self._stage

    def _show(self, description: str, done: int, total: int | None, figures: str = "") -> None:
        if self._stage != description:
            self._stage = description
            self._bars.remove_task(self._task)
            self._task = self._bars.add_task(description, total=total, figures="")
            if not self._console.is_terminal:  # a log shows no bars
                self.say(description)
        self._bars.update(self._task, completed=done, total=total, figures=figures)

    def _left(self) -> str:
        seconds = self._plan.seconds_left() if self._plan else None
        return "" if seconds is None else f"{describe_seconds(seconds)} left in all"

    def _name_epoch(self, epoch: int) -> str:
        is_planned = self._plan is not None and self._plan.step.name == NETWORK_LEARNS
        return f"epoch {epoch + 1}" + (f" of {self._plan.step.num_units:.0f}" if is_planned and self._plan else "")

    def fetching(self, done_bytes: int, total_bytes: int) -> None:
        self._show("fetching MB", done_bytes // 1_000_000, total_bytes // 1_000_000)

    def checking(self, done: int, total: int) -> None:
        self._show("checking", done, total)

    def found(self, check: "DataCheck") -> None:
        for finding in check.findings:
            self.say(finding.sentence)

    def checked(self, check: "DataCheck", split: "Split") -> None:
        for finding in split.set_aside:
            self.say(finding.sentence)
        sizes = ", ".join(f"{len(photographs)} {part}" for part, photographs in split.photographs.items())
        self.say(f"{len(check.photographs)} photographs: {sizes}")

    def planned(self, plan: Plan) -> None:
        self._plan = plan
        for line in plan.lines():
            self.say(line)

    def progress(self, what: str, done: int, total: int) -> None:
        if self._plan:
            self._plan.move(what, done, total)
        self._show(what, done, total, self._left())

    def taught(self, teacher: str, accuracy: float | None) -> None:
        if accuracy is not None:
            self.say(f"{teacher} teaches: {accuracy:.1%} of the validation part right")

    def stage(self, name: str) -> None:
        if self._plan:
            self._plan.move(name)
        self._show(name, 0, None, self._left())

    def step(self, epoch: int, step: int, num_steps: int, loss: float, accuracy: float, images_per_s: float) -> None:
        if self._plan:
            self._plan.move(NETWORK_LEARNS, epoch + step / num_steps)
        pace = self._left() or f"{images_per_s:.0f} images/s"
        self._show(self._name_epoch(epoch), step, num_steps, f"loss {loss:.3f}  accuracy {accuracy:.3f}  {pace}")

    def epoch(self, result: "Epoch") -> None:
        if self._plan:
            self._plan.move(NETWORK_LEARNS, result.epoch + 1)
        validation = ""
        if result.validation_loss is not None:
            figures = result.validation_loss, result.validation_accuracy
            validation = "validation loss {:.4f}, validation accuracy {:.4f}, ".format(*figures)
        left = self._left()
        self.say(
            f"{self._name_epoch(result.epoch)}: loss {result.loss:.4f}, accuracy {result.accuracy:.4f}, "
            f"{validation}{result.seconds:.1f} s, {result.images_per_s:.0f} images/s{', ' if left else ''}{left}"
        )

    def say(self, sentence: str) -> None:
        self._console.print(printable(sentence), soft_wrap=True)


def print_trained(results: "list[Trained]") -> None:
    """Print the trained versions, and for each its report, its mistakes and the next command."""
    print_result(_to_table(results))
    for result in results:
        print_result(Text("\n".join(_describe_end(result))))


def _to_table(results: "list[Trained]") -> Table:
    table = Table(title="trained")
    for column in ("model", "version", "device", "epochs", "s / epoch", "test accuracy", "95 % interval"):
        table.add_column(column)
    for result in results:
        test = result.test
        table.add_row(
            Text(result.model), str(result.version), result.device,
            f"{result.num_epochs}{' (interrupted)' if result.interrupted else ''}", f"{result.seconds_per_epoch:.1f}",
            f"{100 * test.accuracy:.2f} % ({test.num_correct} of {test.num_photographs})",
            f"{100 * test.accuracy_low:.1f}-{100 * test.accuracy_high:.1f} %",
        )  # fmt: skip
    return table


def _describe_end(result: "Trained") -> list[str]:
    num_wrong = result.test.num_photographs - result.test.num_correct
    lines = [_describe_verdict(result, result.verdict)] if result.verdict else []
    worst = " The most confident:" if result.mistakes else ""
    lines.append(f"Mistakes on the test part: {num_wrong} of {result.test.num_photographs} photographs.{worst}")
    lines += [
        f"  {mistake.path} shows {mistake.truth}. The answer is {mistake.answer}, {mistake.probability:.1%}."
        for mistake in result.mistakes
    ]
    is_candidate = result.verdict is not None and not result.verdict.is_taken
    named = f"--model {result.model}{f' --version {result.version}' if is_candidate else ''}"
    if num_wrong:
        lines.append(f"All of them: flowers evaluate FOLDER {named} --part test --mistakes wrong.csv")
    if result.report:
        lines.append(f"Report: {result.report}")
    if is_candidate:
        return [*lines, f"Next: {version_command('take', result.model, result.version)}"]
    return [*lines, f"Next: flowers serve --model {result.model}"]


def _describe_verdict(result: "Trained", verdict: "Verdict") -> str:
    subject = f"Version {result.version} of {result.model}"
    if verdict.is_taken:
        return f"{subject} goes live. {verdict.why}"
    take = version_command("take", result.model, result.version)
    return f"{subject} is a candidate, which no service serves. {verdict.why} Take it all the same with `{take}`."


def to_json(results: "list[Trained]") -> str:
    """Return the trained versions as a JSON list. `report` is null where it could not be written."""
    documents = [
        {
            "model": result.model, "version": result.version, "device": result.device, "epochs": result.num_epochs,
            "interrupted": result.interrupted, "seconds_per_epoch": result.seconds_per_epoch,
            "test_accuracy": result.test.accuracy, "run": str(result.run),
            "report": str(result.report) if result.report else None,
            "state": "candidate" if result.verdict and not result.verdict.is_taken else "version",
            "why": result.verdict.why if result.verdict else None,
        }
        for result in results
    ]  # fmt: skip
    return dumps(documents, indent=1)
