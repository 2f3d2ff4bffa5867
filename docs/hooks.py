"""Hooks of MkDocs (mkdocs.yml): files of the repository that pages link to, and equations as MathML."""

import re
from html import unescape
from pathlib import Path
from posixpath import relpath
from typing import Any

import latex2mathml.converter
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add what pages link to outside docs/, and what that links to; docs/index.md is the home page, not the README."""
    pages = [file for file in files if file.src_uri.endswith(".md")]
    for page in pages:
        for target in _targets(page):
            if ROOT in target.parents and target.is_file() and not _found(files, target):
                name = target.relative_to(ROOT).as_posix()
                file = File.generated(config, "readme.md" if name == "README.md" else name, abs_src_path=str(target))
                files.append(file)
                pages += [file] if target.suffix == ".md" else []
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Point the links, which lead somewhere in the repository, to the same file in the site."""
    source = Path(page.file.abs_src_path).parent

    def there(link: re.Match[str]) -> str:
        file = _found(files, (source / link[1]).resolve())
        return relpath(file.src_uri, page.file.src_uri.rpartition("/")[0] or ".") if file else link[1]

    return LINK.sub(there, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Replace each equation, which GitHub renders itself, by MathML, which browsers render without a script."""

    def mathml(equation: re.Match[str]) -> str:
        tag, display = equation[1], "block" if equation[1] == "div" else "inline"
        converted = latex2mathml.converter.convert(unescape(equation[2]).strip(), display=display)
        return f'<{tag} class="arithmatex">{converted}</{tag}>'

    return EQUATION.sub(mathml, html)


def _targets(page: File) -> list[Path]:
    path = Path(page.abs_src_path or "")
    return [(path.parent / link).resolve() for link in LINK.findall(path.read_text())]


def _found(files: Files, path: Path) -> File | None:
    return next((file for file in files if file.abs_src_path == str(path)), None)
