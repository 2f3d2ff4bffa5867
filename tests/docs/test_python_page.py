"""docs/python.md runs as it stands, and what it says of errors is so."""

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Database

from recstore import errors

PAGE = (Path(__file__).parents[2] / "docs/python.md").read_text()


def test_every_block_runs_in_one_go(shop: Database, capsys: pytest.CaptureFixture[str]) -> None:
    """Jobs first, since reading needs a generation; each block in what the former ones left."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    jobs = [n for n, block in enumerate(blocks) if re.search(r"\bstore\b", block)]
    assert len(blocks) >= 8
    assert len(jobs) >= 3
    names: dict[str, Any] = {"__name__": "page"}
    order = [*jobs[:-1], *(n for n in range(len(blocks)) if n not in jobs), jobs[-1]]
    for n in order:
        text = blocks[n]
        for role in ("webapp", "recstore"):
            for scheme in ("postgresql", "postgresql+psycopg"):
                there = f'"{scheme}://{role}:...@db.example.com/shop"'
                text = text.replace(there, repr(shop.url.replace("postgresql", scheme, 1)))
        text = text.replace('device="cpu"', "retention=0")
        exec(compile(text, f"docs/python.md, block {n + 1}", "exec"), names)
        if engine := names.pop("engine", None):
            names.setdefault("engines", []).append(engine)
    names["engines"][0].dispose()
    printed = capsys.readouterr().out
    assert "product " in printed  # titles
    assert "train took" in printed  # the reporter


def test_the_errors_have_what_the_table_says() -> None:
    table = re.findall(r"^\| (`.*?) \| .* \| (.*) \|$", PAGE, re.MULTILINE)
    assert len(table) >= 12
    for classes, attributes in table:
        for name in re.findall(r"`(\w+)`", classes):
            assert issubclass(getattr(errors, name), errors.RecstoreError)
        last = getattr(errors, re.findall(r"`(\w+)`", classes)[-1])
        for attribute in re.findall(r"`(\w+)`", attributes):
            assert f"{{{attribute}" in (last.__doc__ or ""), f"{last.__name__} has no {attribute}"
