"""The shop of the demo of background work: its dated events, which arrive fast, and the pages that it shows meanwhile.

It is the application's side alone: its own tables and connections, and plain SQL on the published vectors.
"""

import random
import time
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Event

import psycopg

from recstore.demo import read_data
from recstore.errors import RecstoreError
from recstore.postgres.connection import Connection, connect, one_line

SHOP = """
CREATE SCHEMA shop;
CREATE TABLE shop.products (product_id integer PRIMARY KEY, stock_code text NOT NULL, title text NOT NULL);
CREATE TABLE shop.events (viewed_at timestamp NOT NULL, user_id bigint NOT NULL, product_id integer NOT NULL);
CREATE INDEX ON shop.events (user_id, product_id);
"""

ARRIVE_EVERY = 0.1
"""Seconds between two batches of events."""

PAUSE = 0.005
"""Seconds between two queries: the training needs the processors, too."""

K = 10
"""Products in a list."""

RECOMMEND = f"SELECT retail.generation(), r.item_id FROM retail.recommend(%s, {K}) r"  # noqa: S608
SIMILAR = f"SELECT retail.generation(), r.item_id FROM retail.similar_items(%s, {K}) r"  # noqa: S608
SETTINGS = "SELECT retail.use_search_settings()"
SEARCH = f"""
SELECT (SELECT retail.generation()) AS generation, p.product_id
FROM shop.products p
JOIN retail.item_vectors v ON v.item_id = p.product_id
WHERE p.title LIKE %s
ORDER BY v.preference <#> (SELECT retail.user_vector(%s))
LIMIT {K}
"""  # noqa: S608
SEARCHED = ("%BAG%", "%CAKE%", "%HEART%", "%CHRISTMAS%")


class Arrivals:
    """The events as lines of CSV, which begin with their time, in its order."""

    def __init__(self) -> None:
        _, *self.lines = read_data("online_retail_2010_events.csv.gz").splitlines(keepends=True)
        self.customers = sorted({int(line.split(b",")[1]) for line in self.lines})
        self.arrived = 0

    def open_shop(self, connection: Connection, until: datetime) -> None:
        """Create the application's tables, with the events before `until`."""
        connection.execute(SHOP)
        with connection.cursor().copy("COPY shop.products FROM STDIN (FORMAT csv, HEADER)") as copy:
            copy.write(read_data("online_retail_2010.resources.csv.gz"))
        self._arrive(connection, until)
        connection.execute("ANALYZE shop.products, shop.events")

    def replay(self, url: str, since: datetime, seconds: float, stop: Event) -> None:
        """Insert the later events within so many seconds, at the pace of their dates."""
        began, duration = time.monotonic(), self.at(len(self.lines)) + timedelta(seconds=1) - since
        with connect(url, "shop: events") as connection:
            while self.arrived < len(self.lines) and not stop.wait(ARRIVE_EVERY):
                self._arrive(connection, since + min(1, (time.monotonic() - began) / seconds) * duration)

    def at(self, count: int) -> datetime:
        """Return the time of the last of the first `count` events."""
        return datetime.fromisoformat(self.lines[count - 1][:19].decode())

    def _arrive(self, connection: Connection, until: datetime) -> None:
        end = bisect_left(self.lines, str(until).encode())
        with connection.cursor().copy("COPY shop.events FROM STDIN (FORMAT csv)") as copy:
            copy.write(b"".join(self.lines[self.arrived : end]))
        self.arrived = end


@dataclass(frozen=True)
class Read:
    """One query for a list."""

    milliseconds: float
    generation: int | None
    products: int


@dataclass
class Visitor:
    """Queries the shop's pages until the end: recommendations, similar products, and a customer's searches."""

    customers: list[int]
    """Customers who may come; those missing in the live generation get popular products."""

    products: list[int]
    reads: list[Read] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, connection: Connection, arrivals: Arrivals) -> "Visitor":
        """Return a visitor for all customers, and for the products that have similar ones from the beginning."""
        known = "SELECT product_id FROM shop.events GROUP BY product_id HAVING count(DISTINCT user_id) >= 3 ORDER BY 1"
        return cls(arrivals.customers, [row["product_id"] for row in connection.execute(known)])

    def read(self, url: str, stop: Event) -> None:
        while not stop.is_set():
            try:
                with connect(url, "shop: visitor") as connection:
                    self._read(connection, stop)
            except (psycopg.Error, RecstoreError) as error:
                self.errors.append(one_line(error))
                stop.wait(ARRIVE_EVERY)

    def _read(self, connection: Connection, stop: Event) -> None:
        choice = random.Random(len(self.reads)).choice
        while True:
            customer = choice(self.customers)
            for statement, parameters in (
                (RECOMMEND, [customer]),
                (SIMILAR, [choice(self.products)]),
                (SEARCH, [choice(SEARCHED), customer]),
            ):
                if stop.wait(PAUSE):
                    return
                self._ask(connection, statement, parameters)

    def _ask(self, connection: Connection, statement: str, parameters: Sequence[object]) -> None:
        began = time.perf_counter()
        with connection.transaction() if statement is SEARCH else nullcontext():
            if statement is SEARCH:
                connection.execute(SETTINGS)
            rows = connection.execute(statement, parameters).fetchall()
        milliseconds = 1000 * (time.perf_counter() - began)
        self.reads.append(Read(milliseconds, rows[0]["generation"] if rows else None, len(rows)))
