"""The wording of code and pages: words that are avoided, docstrings in the imperative.

Each bound is the number of places that are left. Lower it, never raise it; at 0, D401 belongs to ruff's rules in pyproject.toml.
"""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
AVOIDED = {
    r"\bcan not\b": "cannot",
    r"\btold\b": "reported, logged, printed",
    r"\bbeside\b": "next to, in addition to",
    r"\bnobody\b": "no session, no user",
    r"\bsomebody\b": "another user, someone",
    r"\banew\b": "again, from scratch",
    r"\bin vain\b": "without effect",
}
"""Regular expression -> what to write instead."""

WORDINGS_LEFT = 63
DOCSTRINGS_LEFT = 18


def wordings(path: Path) -> list[str]:
    text, name = path.read_text(), path.relative_to(ROOT)
    found = [
        f"{name}:{number}: {match[0]!r}: write {better}"
        for number, line in enumerate(text.splitlines(), 1)
        for word, better in AVOIDED.items()
        for match in re.finditer(word, line, re.IGNORECASE)
    ]
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module) and (
                begins := re.match(r"(What|Of|Whether)\b", ast.get_docstring(node) or "")
            ):
                found.append(f"{name}:{getattr(node, 'lineno', 1)}: a docstring begins with {begins[0]}")
    return found


def test_the_wording() -> None:
    patterns = ("recstore/**/*.py", "worker/*.py", "migrations/**/*.py", "docs/**/*.md", "README.md")
    found = [wording for pattern in patterns for path in sorted(ROOT.glob(pattern)) for wording in wordings(path)]
    assert len(found) <= WORDINGS_LEFT, "\n".join(found)


def test_docstrings_are_in_the_imperative() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--select", "D401", "--output-format", "json", "--exit-zero"]
    printed = subprocess.run([*command, "recstore", "worker", "migrations"], cwd=ROOT, capture_output=True, text=True)
    found = [f"{finding['filename']}:{finding['location']['row']}" for finding in json.loads(printed.stdout)]
    assert len(found) <= DOCSTRINGS_LEFT, "\n".join(found)
