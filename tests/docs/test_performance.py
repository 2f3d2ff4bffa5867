"""docs/performance.md is what the benchmarks' results say."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_page_is_written_from_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    try:
        import performance

        assert performance.page(*performance.read()) == (ROOT / "docs" / "performance.md").read_text()
    finally:
        for name in ("performance", "measured"):
            sys.modules.pop(name, None)
