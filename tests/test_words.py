"""Words: the lengths of sentences in docstrings and documents, and of the names of tests.

A sentence ends at `.`, `!` or `?` before a capital, and with its paragraph or entry. Backticked text is one word.
Code, headings, tables, marks of bullets and the labels of `Args:` entries do not count.
"""

import ast
import re
import statistics
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

SECTIONS = {
    "args",
    "returns",
    "raises",
    "yields",
    "attributes",
    "example",
    "examples",
    "source",
    "sources",
    "note",
    "notes",
}
ENTRY = re.compile(r"^\*{0,2}[`\w.\[\], |*/-]+(?:\s*\([^)]*\))?:\s+(.*)$")
BULLET = re.compile(r"^(?:[*+-]|\d+[.)]) ")
PICTURE = (">>>", "... ", "|", "+-", "├", "└", "│", "#", ".. ")
MODULES = sorted((REPOSITORY / "service").rglob("*.py"))
PAGES = sorted((REPOSITORY / "docs").rglob("*.md"))
MAX_LINES_OF_README = 140
MAX_WORDS_OF_TEST_NAME = 9


class Sentences:
    """The sentences of some texts, with their numbers of words."""

    def __init__(self, paragraphs: Iterator[str]) -> None:
        self.rows = [row for paragraph in paragraphs for row in split_sentences(paragraph)]

    @property
    def median(self) -> float:
        return statistics.median(num_words for _, num_words in self.rows)

    @property
    def chained(self) -> float:
        """The share of sentences with a semicolon or a colon."""
        return statistics.fmean(bool(re.search(r"[;:]", re.sub(r"\d:\d", "", text))) for text, _ in self.rows)

    def longest(self) -> str:
        return "\n".join(text for text, _ in sorted(self.rows, key=lambda row: -row[1])[:10])


def split_sentences(paragraph: str) -> Iterator[tuple[str, int]]:
    text = re.sub(r"``[^`]*``|`[^`]*`", "CODE", paragraph)
    text = re.sub(r"https?://\S+", "URL", text)
    text = re.sub(r"\b(e\.g|i\.e|et al|vs|cf|sec|etc|No)\.", r"\1", text)
    text = re.sub(r"(\d)\.(\d)", r"\1,\2", text)
    for sentence in re.split(r"(?<=[.!?])[\"')]?\s+(?=[A-Z(\"'])", text):
        num_words = len(re.findall(r"[A-Za-z0-9][\w'.,/-]*", sentence))
        if num_words >= 2:
            yield sentence, num_words


def read_docstrings(module: Path) -> Iterator[str]:
    """The docstrings of the module, its classes, functions and attributes."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if text := ast.get_docstring(node):
            yield text
        for statement, after in zip(node.body, node.body[1:], strict=False):
            match statement, after:
                case (ast.Assign() | ast.AnnAssign(), ast.Expr(ast.Constant(str(attribute)))):
                    yield textwrap.dedent(attribute).strip()


def split_docstring(docstring: str) -> Iterator[str]:
    """The paragraphs and entries of a docstring, each in one line."""
    current: list[str] = []
    section = ""
    is_code = False
    for line in [*docstring.splitlines(), ""]:
        text, indent = line.strip(), len(line) - len(line.lstrip())
        is_fence = text.startswith("```")
        is_code ^= is_fence
        is_heading = text.endswith(":") and text[:-1].lower() in SECTIONS
        has_words = not (is_code or is_fence or is_heading or text.startswith(PICTURE)) and bool(
            set(text) - set("-=~^ ")
        )
        left_section = bool(section) and indent == 0 and has_words
        if is_heading or left_section:
            section = text[:-1].lower() if is_heading else ""
        source = re.match(r"^(?:Sources?|References?|Notes?):\s+(.*)$", text)
        entry = ENTRY.match(text) if section and indent <= 8 else None
        if not has_words or left_section or source or entry or BULLET.match(text):
            yield " ".join(current)
            current = []
        is_example = indent >= 4 and (section.startswith("example") or (not section and not current))
        if has_words and not is_example:
            current.append(BULLET.sub("", (source or entry or [text, text])[1]))


def split_page(page: str) -> Iterator[str]:
    """The paragraphs and bullets of a Markdown page, without tables that a program wrote."""
    text = re.sub(r"<!-- written by.*?<!-- end -->", "", page, flags=re.DOTALL)
    text = re.sub(r"```.*?```", "\n\n", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]+>", "", text)
    current: list[str] = []
    for line in [*text.splitlines(), ""]:
        bare = line.strip()
        if not bare or bare.startswith(("#", "|", "!", "[!")) or BULLET.match(bare):
            yield " ".join(current)
            current = []
        if bare and not bare.startswith(("#", "|", "!", "[!")) and (current or not line.startswith("    ")):
            current.append(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", BULLET.sub("", bare)))


def read_page(path: Path) -> Sentences:
    return Sentences(split_page(path.read_text(encoding="utf-8")))


def test_docstrings_are_short() -> None:
    docstrings = (text for module in MODULES for text in read_docstrings(module))
    sentences = Sentences(paragraph for text in docstrings for paragraph in split_docstring(text))
    assert len(sentences.rows) > 500
    assert sentences.median <= 10, sentences.longest()
    assert sentences.chained <= 0.25


def test_the_readme_is_short() -> None:
    readme = REPOSITORY / "README.md"
    assert len(readme.read_text(encoding="utf-8").splitlines()) <= MAX_LINES_OF_README
    assert read_page(readme).median <= 15, read_page(readme).longest()
    assert read_page(readme).chained <= 0.25


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_pages_are_short(page: Path) -> None:
    sentences = read_page(page)
    assert sentences.rows
    assert sentences.median <= 15, sentences.longest()
    assert sentences.chained <= 0.25


@pytest.mark.parametrize("page", [REPOSITORY / "README.md", *PAGES], ids=lambda path: path.stem)
def test_pages_name_a_thing_by_one_word(page: Path) -> None:
    text = " ".join(split_page(page.read_text(encoding="utf-8"))).lower()
    assert not re.findall(r"\b(?:pictures?|light engine|cpu engine|nobody|whoever)\b", text)


def read_strings(tree: ast.AST) -> Iterator[str]:
    """Every string constant below a node, the parts of f-strings included."""
    for node in ast.walk(tree):
        match node:
            case ast.Constant(str(text)):
                yield text


def read_module(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_no_string_of_the_program_says_picture() -> None:
    texts = [(path.name, text) for path in MODULES for text in read_strings(read_module(path))]
    assert len(texts) > 1_000
    assert not [row for row in texts if re.search(r"\bpictures?\b", row[1], re.IGNORECASE)]


def test_no_message_of_an_error_has_a_semicolon() -> None:
    raised = [node for path in MODULES for node in ast.walk(read_module(path)) if isinstance(node, ast.Raise)]
    messages = [text for node in raised if node.exc for text in read_strings(node.exc)]
    assert len(messages) > 100
    assert not [text for text in messages if ";" in text]


def test_names_of_tests_are_short() -> None:
    names = {
        node.name
        for module in (REPOSITORY / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }
    assert names
    assert not sorted(name for name in names if len(name.split("_")) - 1 > MAX_WORDS_OF_TEST_NAME)


@pytest.mark.parametrize(
    ("paragraph", "lengths"),
    [
        ("Return a row. It sums to 1.", [3, 4]),
        ("Version 0.5 of `some code here` is 3.11.", [6]),
        ("One sentence, e.g. This is not another", [7]),
    ],
)
def test_sentences_are_counted_as_described(paragraph: str, lengths: list[int]) -> None:
    assert [num_words for _, num_words in split_sentences(paragraph)] == lengths


def test_labels_and_code_do_not_count() -> None:
    docstring = "Score one image.\n\nArgs:\n    image: Its pixels.\n        More of them.\n\n```\ncode: here\n```\n"
    assert [text for text in split_docstring(docstring) if text] == ["Score one image.", "Its pixels. More of them."]


def test_a_chained_sentence_is_noticed() -> None:
    sentences = Sentences(iter(["This is one; that is another.", "This is alone."]))
    assert sentences.chained == 0.5
