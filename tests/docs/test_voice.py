"""The wording of code and pages: words that are avoided. Ruff checks that docstrings begin with an imperative verb (D401)."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
AVOIDED = {
    r"\bcan not\b": "cannot",
    r"(?<![`'\"])\btold\b(?![`'\"])": "reported, logged, printed",
    r"\bbeside\b": "next to, in addition to",
    r"(?<!['\"])\b[Nn]obody\b(?!['\"])": "no session, no user",
    r"\bsomebody\b": "another user, someone",
    r"\banew\b": "again, from scratch",
    r"\bin vain\b": "without effect",
}
"""Regular expression -> what to write instead."""


def wordings(path: Path) -> list[str]:
    text, name = path.read_text(), path.relative_to(ROOT)
    found = [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}: write {better}"
        for word, better in AVOIDED.items()
        for match in re.finditer(word, text)
    ]
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module) and (
                begins := re.match(r"(What|Of|Whether)\b", ast.get_docstring(node) or "")
            ):
                found.append(f"{name}:{getattr(node, 'lineno', 1)}: a docstring begins with {begins[0]}")
    return found


def test_the_wording() -> None:
    patterns = (
        "recstore/**/*.py",
        "worker/*.py",
        "migrations/**/*.py",
        "docs/**/*.md",
        "README.md",
        "examples/**/*.*[dy]",
    )
    found = [wording for pattern in patterns for path in sorted(ROOT.glob(pattern)) for wording in wordings(path)]
    assert not found, "\n".join(found)
