"""What a run shows while it runs: a bar at a terminal, plain lines elsewhere, always on standard error; and the sentence
for each stage that has ended."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_EVERY = 5.0
"""Seconds between progress lines where there is no terminal."""


class StageReporter:
    """A `runs.Reporter` for people."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task: Any = None
        self.name = ""
        self.last = 0.0

    @contextmanager
    def showing(self) -> Iterator["StageReporter"]:
        with self.bar:
            yield self

    def stage(self, name: str, seconds: float, details: dict[str, Any]) -> None:
        self._close()
        self.console.print(f"{name:<12} {seconds:7.2f} s   {sentence(name, details)}", markup=False)

    def progress(self, name: str, done: int, total: int, note: str = "") -> None:
        if self.console.is_terminal:
            if self.name != name:
                self._close()
                self.task, self.name = self.bar.add_task(name, total=total, note=note), name
            self.bar.update(self.task, completed=done, total=total, note=note)
        elif time.monotonic() - self.last > PLAIN_EVERY and self.name == name:
            self.last = time.monotonic()
            self.console.print(f"{name:<12} {done} of {total}   {note}", markup=False)
        elif self.name != name:
            self.name, self.last = name, time.monotonic()

    def warn(self, sentence: str) -> None:
        self.console.print(f"Warning: {sentence}", markup=False)

    def _close(self) -> None:
        if self.task is not None:
            self.bar.remove_task(self.task)
        self.task, self.name = None, ""


def sentence(name: str, details: dict[str, Any]) -> str:
    """What a stage did, from what it stored with the run: this version's, or another's that stored something else."""
    try:
        return _sentence(name, details)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return ", ".join(f"{key} {value}" for key, value in details.items())


def _sentence(name: str, details: dict[str, Any]) -> str:
    if "told" in details:
        return str(details["told"])
    match name:
        case "prepare":
            return f"generation {details['generation']}"
        case "read":
            parts = [f"{details['rows']:,} rows: {details['users']:,} users, {details['items']:,} items"]
            for key, words in (
                ("nulls", "with NULL or NaN dropped"),
                ("nonpositive", "zero or negative dropped"),
                ("duplicates", "duplicates merged"),
            ):
                if details[key]:
                    parts.append(f"{details[key]:,} {words}")
            return ", ".join(parts)
        case "filter":
            left = f"{details['pairs']:,} interactions of {details['users']:,} users with {details['items']:,} items"
            return "; ".join([*details["dropped"], f"left: {left}"]) if details["dropped"] else left
        case "weigh":
            return f"confidence from {details['function']}"
        case "train":
            loss = f", loss {details['losses'][-1]:.6g}" if details.get("losses") else ""
            return (
                f"{details['trainer']}: {details['factors']} factors, {details['iterations']} iterations"
                f"{' from the live items' if details.get('warm') else ''} on the {details['device'].upper()}{loss}"
            )
        case "hold out" if not details["pairs"]:
            return "nothing: too few users to compare by, or told not to"
        case "hold out":
            return f"{details['pairs']:,} pairs, for the gate"
        case "gate":
            return gate_words(details)
        case "solve users":
            return f"{details['users']:,} users, exactly"
        case "vectors":
            return f"{details['dimensions']} dimensions, {details['type']}"
        case "load":
            return f"{details['items']:,} items, {details['users']:,} users"
        case "index":
            return f"{len(details['indexes'])} built anew" if "indexes" in details else "ids and popularity"
        case "calibrate":
            return "; ".join(f"{kind}: {plan_words(chosen)}" for kind, chosen in details.items())
        case "check" if "bad" not in details:
            return f"{details['indexes']} indexes"
        case "check":
            return "row counts, lengths, no NaN" + (
                f", {details['collapsed']} collapsed" if details["collapsed"] else ""
            )
        case "resize":
            return f"room for {details['dimensions']} dimensions, {details['type']}"
        case "attach":
            return f"generation {details['generation']} is next"
        case "flip":
            return "live" if details["live"] else "not yet live"
        case "tidy" | "prune":
            return "; ".join(pruned_words(details))
        case _:
            raise KeyError(name)


def gate_words(verdict: dict[str, Any]) -> str:
    """What the held-out pairs said of a generation."""
    told = [f"NDCG@20 {verdict['metrics']['ndcg@20']:.4f}, popularity {verdict['popularity']['of_other']:.4f}"]
    live = verdict["live"]
    told += [f"{live['other']} {live['of_other']:.4f} against {live['of_new']:.4f}"] if live else []
    told.append(f"on {verdict['pairs']:,} held-out pairs of {verdict['users']:,} users")
    told += [f"not compared: {verdict['unknown']}"] if verdict["unknown"] else []
    return "; ".join(told)


def plan_words(chosen: dict[str, Any]) -> str:
    """A calibrated plan in words."""
    if chosen["ef"] is None:
        return f"exact scan, {chosen['milliseconds']} ms"
    return f"HNSW at ef_search {chosen['ef']}, ANN recall@10 {chosen['ann_recall']:.3f}, {chosen['milliseconds']} ms"


def pruned_words(done: dict[str, Any]) -> list[str]:
    """What a prune did and did not, a phrase each."""
    removed = ", ".join(map(str, done["pruned"]))
    words = [f"removed {removed}"] if removed else []
    words += [
        f"{generation} stays until {'; '.join(who)} has ended" for generation, who in done.get("postponed", {}).items()
    ]
    words += [
        f"{generation} stays {seconds} s more (RECSTORE_RETENTION)"
        for generation, seconds in done.get("retained", {}).items()
    ]
    return words or ["no generation to remove"]
