import numpy as np
from rich.console import Console

from service.evaluation.metrics import evaluate
from service.evaluation.text_report import render_evaluation


def test_the_report_shows_accuracy_classes_and_confusions() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]], np.float32)
    evaluation = evaluate(probabilities, np.array([0, 0, 1, 1]), ("[red]oses", "tulips"))
    console = Console(width=100, force_terminal=False)
    with console.capture() as captured:
        console.print(render_evaluation(evaluation, "flowers, version 3"))
    lines = [" ".join(line.replace("│", " ").split()) for line in captured.get().splitlines()]
    assert lines[0] == "flowers, version 3"
    assert "accuracy 75.0%, 3 of 4 photographs, 95 % interval 30.1% to 95.4%" in lines
    assert "[red]oses 0.667 1.000 0.800 2" in lines, "precision, recall, F1, photographs; a label is no markup"
    assert "tulips 1.000 0.500 0.667 2" in lines
    assert "[red]oses 2 0" in lines
    assert "tulips 1 1" in lines, "row: what it truly is; column: what was predicted"


def test_a_class_without_photographs_has_no_figures() -> None:
    evaluation = evaluate(np.array([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]], np.float32), np.array([0, 0]), ("a", "b", "c"))
    console = Console(width=100, force_terminal=False)
    with console.capture() as captured:
        console.print(render_evaluation(evaluation, "flowers, version 3"))
    lines = [" ".join(line.replace("│", " ").split()) for line in captured.get().splitlines()]
    assert "classes 1 of the model's 3, without photographs of b, c" in lines
    assert {"a 1.000 0.500 0.667 2", "b - - - 0", "c - - - 0"} <= set(lines)


def test_of_many_classes_the_most_frequent_confusions_are_listed() -> None:
    names = [f"species_{number:03d}" for number in range(100)]
    truth, answers = np.tile(np.arange(100), 3), np.tile(np.arange(100), 3)
    answers[truth == 7] = 9
    evaluation = evaluate(np.eye(100, dtype=np.float32)[answers], truth, names)
    console = Console(width=80, force_terminal=False)
    with console.capture() as captured:
        console.print(render_evaluation(evaluation, "flowers, version 3"))
    lines = [" ".join(line.replace("│", " ").split()) for line in captured.get().splitlines()]
    assert "species_007 species_009 3" in lines
    assert len([line for line in lines if line.startswith("species_")]) == 101
