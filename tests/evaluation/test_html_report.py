import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from support.drawing import draw_photograph, encode

from service.evaluation.html_report import Section, render_page
from service.evaluation.metrics import evaluate
from service.evaluation.score import Answers
from service.imaging.limits import ImageLimits, ResizeRule

CLASS_NAMES = ("daisy", "roses & <thorns>")


@pytest.fixture
def answers(tmp_path: Path) -> Answers:
    """Four photographs; the second and the fourth are answered wrongly, the fourth more confidently."""
    paths = tuple(tmp_path / f"{number}.jpg" for number in range(4))
    for number, path in enumerate(paths):
        path.write_bytes(encode(draw_photograph(number % 2, number)))
    rows = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.95, 0.05]], np.float32)
    return Answers(paths, rows, np.array([0, 0, 1, 1]))


def page_of(answers: Answers, *sections: Section) -> str:
    evaluation = evaluate(answers.probabilities, answers.class_indices, CLASS_NAMES)
    return render_page("flowers <1>", evaluation, answers, ResizeRule(), ImageLimits(), sections)


def test_the_page_needs_no_other_file_and_runs_nothing(answers: Answers) -> None:
    page = page_of(answers)
    references = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", page)
    assert references
    assert all(reference.startswith(("data:", "#")) for reference in references)
    assert "<script" not in page
    assert "url(http" not in page


def test_mistakes_are_shown_most_confident_first(answers: Answers) -> None:
    page = page_of(answers)
    assert page.index("3.jpg") < page.index("1.jpg")
    assert "0.jpg" not in page
    assert "2.jpg" not in page
    assert page.count("data:image/jpeg;base64,") == 2


def test_names_are_text_and_never_markup(answers: Answers) -> None:
    named = answers.paths[3].rename(answers.paths[3].with_name("<b>.jpg"))
    page = page_of(replace(answers, paths=(*answers.paths[:3], named)))
    assert "<thorns>" not in page
    assert "<b>" not in page
    assert "&lt;b&gt;.jpg" in page
    assert "flowers &lt;1&gt;" in page


def test_every_element_is_closed_and_further_sections_follow(answers: Answers) -> None:
    page = page_of(answers, Section("Recipe", "<p>ours</p>"))
    open_elements: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta", "img", "br"):
                open_elements.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_elements.pop() == tag

        def handle_startendtag(self, tag: str, attrs: object) -> None:
            pass

    Checker().feed(page)
    assert not open_elements
    assert page.index("Most confidently wrong") < page.index("<h2>Recipe</h2><p>ours</p>")


def test_the_same_evaluation_gives_the_same_page(answers: Answers) -> None:
    assert page_of(answers) == page_of(answers)


def test_a_photograph_replaced_by_a_pipe_is_left_out(answers: Answers) -> None:
    answers.paths[3].unlink()
    os.mkfifo(answers.paths[3])
    os.truncate(answers.paths[1], 2**42)
    assert page_of(answers).count("The photograph can no longer be read.") == 2


def test_a_photograph_that_has_gone_costs_only_its_image(answers: Answers) -> None:
    answers.paths[3].unlink()
    answers.paths[1].write_bytes(answers.paths[1].read_bytes()[:500])
    page = page_of(answers)
    assert "3.jpg" in page
    assert page.count("The photograph can no longer be read.") == 2


def test_a_class_without_photographs_is_named_on_the_page(answers: Answers) -> None:
    few = Answers(answers.paths[:2], answers.probabilities[:2], answers.class_indices[:2])
    page = page_of(few)
    assert "without photographs of roses &amp; &lt;thorns&gt;" in page
    assert "<td>-</td>" in page


def test_a_title_outside_utf_8_is_escaped(answers: Answers) -> None:
    evaluation = evaluate(answers.probabilities, answers.class_indices, CLASS_NAMES)
    page = render_page("on photos\udce9", evaluation, answers, ResizeRule(), ImageLimits())
    assert "on photos\\udce9" in page
    page.encode()
