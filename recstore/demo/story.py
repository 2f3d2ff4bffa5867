"""The output of the demo of background work for each run: what the generation was trained on, which lists changed, and the
reads."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from textwrap import wrap
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from recstore.demo.traffic import Arrivals, K, Read, Visitor
from recstore.postgres.connection import Connection

CUSTOMER = 42
"""Customer whose list is shown."""

WATCHED = 100
"""Number of customers whose lists are compared."""

INDENT, WIDTH = 15, 100

ASKED = (
    "SELECT * FROM retail.recommend(42, 10);",
    "SELECT * FROM retail.similar_items(1606, 10);",
    "SELECT p.title FROM shop.products p JOIN retail.item_vectors v ON v.item_id = p.product_id",
    "WHERE p.title LIKE '%BAG%' ORDER BY v.preference <#> (SELECT retail.user_vector(42)) LIMIT 10;",
)
"""Queries of the visitor, for many customers and products."""

LISTS = f"""
SELECT c.user_id, r.item_id
FROM unnest(%s::bigint[]) c(user_id)
CROSS JOIN LATERAL retail.recommend(c.user_id, {K}) r
ORDER BY c.user_id, r.score DESC, r.item_id
"""  # noqa: S608

SEEN = "SELECT i.user_id, i.item_id FROM retail.interactions i WHERE i.user_id = ANY (%s)"

READ, TRAINED = ("prepare", "read", "filter", "weigh"), ("train", "solve users", "vectors")
"""Stages that read, and that train; the others publish."""

TITLES_SHOWN = 2
"""Largest number of titles in a line of products."""


@dataclass
class Trained:
    """A generation's training data and lists."""

    counts: dict[str, int]
    items: set[int]
    lists: dict[int, list[int]]


@dataclass
class Story:
    """Prints each run, compared with the generation before."""

    console: Console
    connection: Connection
    arrivals: Arrivals
    visitor: Visitor
    live: Trained | None = None
    listed: set[int] = field(default_factory=set)
    runs: Counter[str] = field(default_factory=Counter)
    reads: int = 0

    def __post_init__(self) -> None:
        rows = self.connection.execute("SELECT product_id, title FROM shop.products").fetchall()
        self.titles = {row["product_id"]: " ".join(row["title"].split()) for row in rows}
        rows = self.connection.execute("SELECT DISTINCT user_id FROM shop.events ORDER BY user_id").fetchall()
        others = [row["user_id"] for row in rows if row["user_id"] != CUSTOMER]
        self.watched = [CUSTOMER, *others[:: len(others) // WATCHED][: WATCHED - 1]]

    @property
    def complete(self) -> bool:
        """True once the live generation was trained on every event."""
        return self.live is not None and self.live.counts["events"] == len(self.arrivals.lines)

    def open(self, since: datetime, seconds: float) -> None:
        """Print the heading before the events arrive."""
        self._heading(
            "Now the rest of the year arrives,",
            f"from {since:%B} on, within {seconds:g} s. A visitor queries meanwhile:",
        )
        for question in ASKED:
            self.console.print(f"  {question}", style="cyan", markup=False)

    def now(self) -> str:
        """Return the status line between two runs."""
        until = self.arrivals.at(self.arrivals.arrived)
        return f"{until:%d %B %Y}: {self.arrivals.arrived:,} events, {len(self.visitor.reads):,} reads"

    def show(self, run: dict[str, Any]) -> None:
        """Print a run that has ended."""
        self.runs[run["state"]] += 1
        why = "requested in SQL" if "sql" in run["origins"] else "by its schedule"
        if run["state"] != "succeeded":
            self._heading(f"run {run['run']}", f"({why}, {run['seconds']:.1f} s)")
            self._line("", run["outcome"])
            return
        took = {stage["stage"]: stage["seconds"] for stage in run["stages"]}
        read, train = (sum(took[name] for name in names) for names in (READ, TRAINED))
        parts = f"read {read:.1f}, train {train:.1f}, publish {run['seconds'] - read - train:.1f}"
        self._heading(f"generation {run['generation']} is live", f"({why}, {run['seconds']:.1f} s: {parts})")
        before, self.live = self.live, self._generation(run)
        self._knows(self.live, before)
        if before:
            self._lists(self.live, before)
            self._reading()
        else:
            self._shown("is shown: ")
        self.listed.update(*self.live.lists.values())

    def end(self, seconds: float) -> dict[str, Any]:
        """Print the sums and return them."""
        reads = self.visitor.reads
        self._heading("All in all", f"{seconds:.0f} s")
        self._line("runs", f"{self.runs['succeeded']} publications, {self.runs['skipped']} skipped")
        self._line("reads", f"{len(reads):,}: {self._whole(reads)}")
        self._line("", _times(reads))
        self._shown("is shown at the end: ")
        return {
            "seconds": seconds,
            "publications": self.runs["succeeded"],
            "skipped": self.runs["skipped"],
            "reads": len(reads),
            "errors": len(self.visitor.errors),
            "short_lists": sum(read.products < K for read in reads),
            "milliseconds": _percentiles(reads),
        }

    def _generation(self, run: dict[str, Any]) -> Trained:
        filtered = next(stage for stage in run["stages"] if stage["stage"] == "filter")
        items = self.connection.execute("SELECT item_id, views FROM retail.item_vectors").fetchall()
        lists: dict[int, list[int]] = {customer: [] for customer in self.watched}
        for row in self.connection.execute(LISTS, [self.watched]):
            lists[row["user_id"]].append(row["item_id"])
        counts = {
            "events": int(sum(row["views"] for row in items)),
            "customers": filtered["users"],
            "products": len(items),
            "interactions": filtered["pairs"],
        }
        return Trained(counts, {row["item_id"] for row in items}, lists)

    def _knows(self, now: Trained, before: Trained | None) -> None:
        until = f"{self.arrivals.at(now.counts['events']):%d %B %Y}".lstrip("0")
        events, *others = (
            f"{count:,} {what}"
            + f" up to {until}" * (what == "events")
            + (f" (+{count - before.counts[what]:,})" if before else "")
            for what, count in now.counts.items()
        )
        self._line("trained on", events)
        self._line("", ", ".join(others))

    def _lists(self, now: Trained, before: Trained) -> None:
        """Print how the watched customers' lists changed, what they bought of them, and one customer's changes in full."""
        former = [(customer, item) for customer, items in before.lists.items() for item in items]
        seen = {(row["user_id"], row["item_id"]) for row in self.connection.execute(SEEN, [self.watched])}
        stay = sum(item in now.lists[customer] for customer, item in former)
        bought = sum(pair in seen for pair in former)
        self._line(
            "lists",
            f"{stay / len(former):.0%} of the products shown to {len(now.lists)} customers stay,"
            f" {bought} of {len(former):,} were bought since",
        )
        first = set[int]().union(*now.lists.values()) - self.listed
        newest = sorted(first, key=lambda item: (item in before.items, item))
        self._products("", f"{len(first)} products shown for the first time", newest)
        ours, was = now.lists[CUSTOMER], before.lists[CUSTOMER]
        bought_by_ours = {item for customer, item in seen if customer == CUSTOMER}
        self._products(f"customer {CUSTOMER}", "new", [item for item in ours if item not in was])
        self._products("", "gone", [item for item in was if item not in ours], bought_by_ours)

    def _shown(self, words: str) -> None:
        """Print the whole list of one customer."""
        assert self.live
        titles = (self.titles[item] for item in self.live.lists[CUSTOMER])
        self._line(f"customer {CUSTOMER}", words + "; ".join(titles))

    def _reading(self) -> None:
        """Print the reads since the last report."""
        reads = self.visitor.reads[self.reads :]
        self.reads += len(reads)
        each = ", then ".join(
            f"{len(list(some)):,} from generation {number}"
            for number, some in groupby(reads, lambda read: read.generation)
        )
        self._line("reads", f"{each}: {self._whole(reads)}")
        self._line("", _times(reads))

    def _whole(self, reads: Sequence[Read]) -> str:
        short = sum(read.products < K for read in reads)
        return f"{len(self.visitor.errors)} errors, {short} short lists"

    def _heading(self, what: str, more: str) -> None:
        self.console.print(Text.assemble("\n", (what, "bold"), " ", more))

    def _line(self, label: str, text: str) -> None:
        for place, line in enumerate(wrap(text, WIDTH - INDENT)):
            shown = "" if place else f"  {label}"
            self.console.print(Text.assemble((shown.ljust(INDENT), "cyan"), line))

    def _products(self, label: str, what: str, items: Sequence[int], bought: Collection[int] = ()) -> None:
        titles = [self.titles[item] + " (bought)" * (item in bought) for item in items[:TITLES_SHOWN]]
        more = [f"{len(items) - TITLES_SHOWN} more"] * (len(items) > TITLES_SHOWN)
        self._line(label, f"{what}: {'; '.join(titles + more) or 'nothing'}")


def _times(reads: Iterable[Read]) -> str:
    took = _percentiles(reads)
    return f"p50 {took['p50']:.1f} ms, p99 {took['p99']:.1f} ms, slowest {took['slowest']:.0f} ms"


def _percentiles(reads: Iterable[Read]) -> dict[str, float]:
    milliseconds = np.array([read.milliseconds for read in reads] or [0.0])
    p50, p99 = np.percentile(milliseconds, [50, 99])
    return {"p50": float(p50), "p99": float(p99), "slowest": float(milliseconds.max())}
