"""Store what a benchmark measured: one JSON file for each part, and a history by commit.

A part is a script, or a form of it. `benchmarks/performance.py` writes the page and its plots from these files alone:

    part = Measured("job", factors=64)
    times = alternately({"recstore": one, "psql": two}, rounds=5)
    part.row("read", ids="bigint", **medians(times))
    part.level("read", "1.5 times psql's binary COPY to nowhere", 1.5, 2.2, "times", note="the mapping of ids takes the rest")
    part.write()

`write` replaces the part's file; history.jsonl keeps the levels of earlier commits. A figure is never typed into the page.
"""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

BUSY = 0.5
"""Load average per core, before a benchmark begins, from which the page says that the machine was busy."""


class Measured:
    """The measurements of one script. Create it before the measuring begins, so that it records the load of the machine."""

    def __init__(self, part: str, **settings: Any) -> None:
        self.part, self.settings = part, settings
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.levels: list[dict[str, Any]] = []
        self.profiles: dict[str, str] = {}
        self.load = os.getloadavg()[0]

    def row(self, table: str, **columns: Any) -> None:
        """Add a row to a table, and print it."""
        self.tables.setdefault(table, []).append(rounded(columns))
        print(f"{self.part}, {table}: {json.dumps(rounded(columns))}", flush=True)

    def level(
        self, stage: str, level: str, limit: float, measured: float, unit: str, *, note: str = "", least: bool = False
    ) -> None:
        """Add a level of the given unit (times, ms, s, %, GB) that is at most `limit`, or with `least` at least, and print it."""
        holds = bool(measured >= limit if least else measured <= limit)
        row = {"stage": stage, "level": level, "limit": limit, "measured": measured, "unit": unit, "holds": holds}
        self.levels.append(rounded(row | {"note": note}))
        print(f"{'holds' if holds else 'DOES NOT HOLD'}: {stage}: {level}: {measured:.3g} {unit}", flush=True)

    def profile(self, stage: str, text: str) -> None:
        """Keep a profile in words or as a table of Markdown: where the time goes, what was tried."""
        self.profiles[stage] = text

    def write(self) -> None:
        """Write the part's file and, if it has levels, a line of history in place of an earlier one of the same commit."""
        RESULTS.mkdir(exist_ok=True)
        head = {"part": self.part, "commit": commit(), "taken_at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"}
        head |= {"machine": machine() | {"load_before": round(self.load, 2)}, "settings": self.settings}
        body = {"tables": self.tables, "levels": self.levels, "profiles": self.profiles}
        (RESULTS / f"{self.part}.json").write_text(json.dumps(head | body, indent=1) + "\n")
        if not self.levels:
            return
        history = RESULTS / "history.jsonl"
        lines = history.read_text().splitlines() if history.exists() else []
        same = ("part", "commit", "settings")
        kept = [line for line in lines if any(json.loads(line)[key] != rounded(head)[key] for key in same)]
        measured = {f"{level['stage']}: {level['level']}": level["measured"] for level in self.levels}
        history.write_text("".join(f"{line}\n" for line in [*kept, json.dumps(rounded(head) | {"levels": measured})]))


def stored(part: str) -> dict[str, Any] | None:
    """Return the content of a part's file, None if it has none."""
    file = RESULTS / f"{part}.json"
    return json.loads(file.read_text()) if file.exists() else None


def alternately(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Call each in turn, round after round; return the seconds of every call."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - began)
    return times


def medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(each) for name, each in times.items()}


def commit() -> str:
    """Return the commit that is checked out, marked if files differ from it other than results and the page."""
    git = ["git", "-C", str(Path(__file__).parent)]
    short = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    own = [":/", ":!/benchmarks/results", ":!/docs/performance.md", ":!/docs/pictures"]
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *own], check=False).returncode
    return short.strip() + ("+" if changed else "")


def machine() -> dict[str, Any]:
    """Return the processor, cores, memory, system and Python."""
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    total = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0)),
        "memory_gb": round(total / 2**20, 1),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }


def rounded(value: Any) -> Any:
    """Return a value with four significant digits in each of its floating point numbers."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {str(key): rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list | tuple) else value


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


if __name__ == "__main__":
    print(json.dumps({"commit": commit()} | machine(), indent=1))
