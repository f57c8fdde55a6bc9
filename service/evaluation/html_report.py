"""Report of an evaluation as one self-contained HTML file, with figures, tables and the worst mistakes."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from service.errors import ImageError
from service.evaluation.metrics import Evaluation
from service.evaluation.mistakes import find_mistakes
from service.evaluation.plots import draw_confusion, draw_reliability
from service.evaluation.score import Answers
from service.evaluation.text_report import summarise
from service.files import read_bounded
from service.imaging.decode import decode_square
from service.imaging.limits import ImageLimits, ResizeRule

_NUM_MISTAKES = 20
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
svg { max-width: 100%; height: auto } .figures svg { width: 30rem; flex: 1 1 20rem }
.figures, .mistakes { display: flex; flex-wrap: wrap; gap: 1rem }
figure { margin: 0; width: 11rem; font-size: .8rem; overflow-wrap: anywhere }
figure img { width: 100%; border-radius: .3rem }
table { border-collapse: collapse } td, th { padding: .15rem .8rem; text-align: left; border-bottom: 1px solid #ddd }
"""


@dataclass(frozen=True)
class Section:
    """Part of the page. Its HTML is trusted."""

    heading: str
    body: str


def render_page(
    title: str,
    evaluation: Evaluation,
    answers: Answers,
    rule: ResizeRule,
    limits: ImageLimits,
    more: Sequence[Section] = (),
    note: str = "",
) -> str:
    """Render the page as an HTML document that needs no other file.

    Wrong answers are read again and shown, most confident first. The sections `more` follow the evaluation's own. The
    `note` stands before all of them.
    """
    sections = [
        Section("Result", f"<pre>{html.escape(summarise(evaluation))}</pre>{_class_table(evaluation)}"),
        Section(
            "Figures",
            f'<div class="figures">{_inline(draw_confusion(evaluation))}{_inline(draw_reliability(answers))}</div>',
        ),
        Section("Most confidently wrong", _mistakes(evaluation.class_names, answers, rule, limits)),
        *more,
    ]
    body = "".join(f"<h2>{html.escape(section.heading)}</h2>{section.body}" for section in sections)
    title, note = html.escape(title), f"<p><b>{html.escape(note)}</b></p>" if note else ""
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>{note}{body}</html>\n"
    )
    return page.encode(errors="backslashreplace").decode()  # a folder's name need not be UTF-8


def to_table(rows: Sequence[Sequence[object]], head: Sequence[str] = ()) -> str:
    """Render an HTML table. Every cell is escaped."""
    lines = ["".join(f"<th>{html.escape(cell)}</th>" for cell in head)] if head else []
    lines += ["".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def to_section(heading: str, svg: str) -> Section:
    """Make a section of a figure."""
    return Section(heading, _inline(svg))


def _inline(svg: str) -> str:
    return svg[svg.index("<svg") :]


def _class_table(evaluation: Evaluation) -> str:
    rows = [(one.label, *one.shares, one.support) for one in evaluation.per_class]
    return to_table(rows, ("class", "precision", "recall", "F1", "photographs"))


def _mistakes(class_names: Sequence[str], answers: Answers, rule: ResizeRule, limits: ImageLimits) -> str:
    predicted, top1 = answers.probabilities.argmax(axis=1), answers.probabilities.max(axis=1)
    wrong = find_mistakes(answers)
    if not wrong:
        return "<p>None.</p>"
    shown = wrong[:_NUM_MISTAKES]
    figures = []
    for i in shown:
        said, truth = html.escape(class_names[predicted[i]]), html.escape(class_names[answers.class_indices[i]])
        name = html.escape(answers.paths[i].name)
        caption = f"<bdi>{said}</bdi> {top1[i]:.0%}, truly <bdi>{truth}</bdi><br><bdi>{name}</bdi>"
        image = _thumbnail(answers.paths[i], rule, limits)
        figures.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    return f'<p>{len(shown)} of {len(wrong)}.</p><div class="mistakes">{"".join(figures)}</div>'


def _thumbnail(path: Path, rule: ResizeRule, limits: ImageLimits) -> str:
    """Return the photograph as an element, or a sentence if it has gone since it was scored."""
    try:
        square = decode_square(read_bounded(path, limits.max_image_bytes), rule, limits)
    except (OSError, ImageError):
        return "<p>The photograph can no longer be read.</p>"
    stream = io.BytesIO()
    Image.fromarray(square).save(stream, "JPEG", quality=80)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return f'<img src="data:image/jpeg;base64,{data}" alt="">'
