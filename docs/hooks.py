"""A hook of mkdocs. It takes files of the repository that pages link to into the site, so that no link leaves it."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = ("SECURITY.md", "benchmarks/accuracy.md", "benchmarks/results/*.md")
FILES = ("LICENSE", "NOTICE", "benchmarks/results/*.json", "benchmarks/results/*.svg")
_LINK = re.compile(r"(\]\()(?!https?:|#|mailto:)([^)#\s]+)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the files outside of `docs/` under their paths in the repository."""
    for path in sorted(path for pattern in (*PAGES, *FILES) for path in REPOSITORY.glob(pattern)):
        name = path.relative_to(REPOSITORY).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Point links to their places in the site, where the root of `docs/` is also that of the repository."""
    folder = posixpath.dirname(page.file.src_uri)
    source = Path(page.file.abs_src_path or "").relative_to(REPOSITORY).parent.as_posix()

    def move(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(source, link[2])).removeprefix("docs/")
        return link[1] + posixpath.relpath(target, folder or ".")

    return _LINK.sub(move, markdown)
