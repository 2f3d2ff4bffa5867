"""Readers in a loop, all through publications, rollbacks and prunings: no error, no short list, never two generations.

Every generation has other vectors, and NumPy knows each one's lists: a row, a score or a number from another generation
makes an answer that is right in none.
"""

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from conftest import Database, copy_of
from support import Generations, Hook, look, until

from recstore.errors import NothingToRollBack
from recstore.operations import jobs
from recstore.postgres.connection import Connection
from recstore.publication import barriers

K = 10
PEOPLE = range(1, 13)

RECOMMEND = "SELECT retail.generation() AS g, r.item_id, r.score FROM retail.recommend(%(id)s, 10) r"
SIMILAR = "SELECT retail.generation() AS g, r.item_id, r.score FROM retail.similar_items(%(id)s, 10, 3) r"
DIRECT = """
    SELECT retail.generation() AS g, p.product_id AS item_id, -(v.preference <#> (SELECT retail.user_vector(%(id)s))) AS score
    FROM shop.products p JOIN retail.item_vectors v ON v.item_id = p.product_id
    WHERE p.visible
    ORDER BY v.preference <#> (SELECT retail.user_vector(%(id)s)), p.product_id LIMIT 10
"""
VIEWS = """
    SELECT retail.generation() AS g, v.item_id, -(v.preference <#> u.preference) AS score
    FROM retail.user_vectors u CROSS JOIN retail.item_vectors v
    WHERE u.user_id = %(id)s
    ORDER BY v.preference <#> u.preference, v.item_id LIMIT 10
"""
INLINED = "SELECT t.g, t.item_id, t.score FROM shop.top(%(id)s) t"

TOP = """
    CREATE FUNCTION shop.top(person bigint) RETURNS TABLE (g bigint, item_id integer, score double precision)
    LANGUAGE sql STABLE AS $$
        SELECT retail.generation(), v.item_id, -(v.preference OPERATOR(public.<#>) u.preference)
        FROM retail.user_vectors u CROSS JOIN retail.item_vectors v
        WHERE u.user_id = top.person
        ORDER BY v.preference OPERATOR(public.<#>) u.preference, v.item_id LIMIT 10
    $$
"""
"""An application's own function over the views. The planner inlines it: EXPLAIN shows no Function Scan."""

Ask = Callable[[Connection, int], list[tuple[str, list[dict[str, Any]]]]]
Answer = tuple[str, int, tuple[int | None, ...], tuple[int, ...], tuple[float, ...]]


def asking(kind: str, statement: str, *, settings: bool = False, prepare: bool = False) -> Ask:
    def ask(connection: Connection, number: int) -> list[tuple[str, list[dict[str, Any]]]]:
        with connection.transaction() if settings else nullcontext():
            if settings:
                connection.execute("SELECT retail.use_search_settings()")
            return [(kind, connection.execute(statement, {"id": number}, prepare=prepare).fetchall())]

    return ask


def repeatable_read(connection: Connection, number: int) -> list[tuple[str, list[dict[str, Any]]]]:
    """Several statements in one snapshot; all their rows belong to one generation."""
    answers = []
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for kind, statement in (
            ("recommended", RECOMMEND),
            ("ranked", VIEWS),
            ("similar", SIMILAR),
            ("ranked", INLINED),
        ):
            answers.append((kind, connection.execute(statement, {"id": number}).fetchall()))
    seen = {row["g"] for _, rows in answers for row in rows}
    assert len(seen) == 1, f"one REPEATABLE READ transaction saw the generations {seen}"
    return answers


READERS: dict[str, tuple[str, Ask]] = {
    "functions": ("worker", asking("recommended", RECOMMEND)),
    "similar items": ("worker", asking("similar", SIMILAR)),
    "direct query": ("worker", asking("ranked", DIRECT, settings=True)),
    "prepared function": ("worker", asking("recommended", RECOMMEND, prepare=True)),
    "prepared views": ("worker", asking("ranked", VIEWS, prepare=True)),
    "prepared inlined": ("worker", asking("ranked", INLINED, prepare=True)),
    "inlined": ("application", asking("ranked", INLINED)),
    "repeatable read": ("worker", repeatable_read),
    "application, repeatable read": ("application", repeatable_read),
    "application, prepared": ("application", asking("recommended", RECOMMEND, prepare=True)),
    "application, direct query": ("application", asking("ranked", DIRECT, settings=True)),
    "application, prepared inlined": ("application", asking("ranked", INLINED, prepare=True)),
}


@dataclass
class Readers:
    """Threads that ask with every kind of reader in turn, each on a connection of its own, until they are stopped."""

    database: Database
    threads: int = 3
    answers: Counter[Answer] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> "Readers":
        self._running = [threading.Thread(target=self._loop, args=(number,)) for number in range(self.threads)]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self._running:
            thread.join()

    def _loop(self, number: int) -> None:
        answers: Counter[Answer] = Counter()
        asked: Counter[str] = Counter()
        try:
            connections = {name: self.database.connect(role) for name, (role, _) in READERS.items()}
            for connection in connections.values():
                connection.execute("SET plan_cache_mode = force_generic_plan")
            for turn in itertools.count(number):
                for name, (_, ask) in READERS.items():
                    if self.ended.is_set():
                        return
                    subject = PEOPLE[turn % len(PEOPLE)]
                    for kind, rows in ask(connections[name], subject):
                        asked[name] += 1
                        answers[answer(kind, subject, rows)] += 1
        except BaseException as error:
            self.errors.append(f"{name}: {type(error).__name__}: {error}")
        finally:
            with self.lock:
                self.answers += answers
                self.asked += asked


def answer(kind: str, subject: int, rows: list[dict[str, Any]]) -> Answer:
    return (
        kind,
        subject,
        tuple({row["g"] for row in rows}),
        tuple(row["item_id"] for row in rows),
        tuple(row["score"] for row in rows),
    )


def wrong(made: Generations, given: Answer) -> bool:
    """Whether an answer is anything but the complete list of the one generation that it names."""
    kind, subject, numbers, ids, scores = given
    return len(numbers) != 1 or numbers[0] is None or not getattr(made, kind)(numbers[0], subject, ids, scores, K)


shop = copy_of("published_template")


@pytest.fixture
def made(shop: Database) -> Generations:
    """A recommender with its first generation live, and an application that reads it."""
    with shop.connect("application") as connection:
        connection.execute(TOP)
    made = Generations(shop)
    made.know(1)
    return made


def test_the_applications_function_is_inlined(made: Generations) -> None:
    plan = made.database.connect().execute("EXPLAIN " + INLINED, {"id": 1}).fetchall()
    assert "Function Scan" not in str(plan)
    assert "_items_" in str(plan)


@pytest.mark.parametrize(
    "publications",
    [
        pytest.param(12, marks=pytest.mark.contract),
        pytest.param(600, marks=pytest.mark.campaign),
    ],
)
def test_readers_see_whole_generations_through_everything(
    shop: Database, made: Generations, publications: int, record_property: Callable[[str, object], None]
) -> None:
    live = rolled_back = pruned = 0
    with Readers(shop) as readers:
        for number in range(publications):
            live += made.publish().live
            if number % 7 == 3:
                rolled_back += roll_back(shop)
            if number % 5 == 4:
                pruned += len(jobs.prune(shop.url, shop.settings, "retail", keep=1)["pruned"])
            if readers.errors:
                break
    assert readers.errors == []
    mistakes = [given for given in readers.answers if wrong(made, given)]
    assert mistakes == []
    assert set(readers.asked) == set(READERS)
    seen = {given[2][0] for given in readers.answers}
    assert live == publications
    assert rolled_back > 0
    assert pruned > 0
    assert len(seen) > publications / 2, "the readers hardly saw a generation: this proved nothing"
    record_property("reads", readers.asked.total())
    print(f"{readers.asked.total()} reads of {len(seen)} generations over {live} publications, {rolled_back} rollbacks")


def roll_back(database: Database) -> bool:
    try:
        jobs.roll_back(database.url, "retail")
        jobs.release(database.url, "retail")
    except NothingToRollBack:
        return False
    return True


GATE = 4711
"""Advisory lock that a test holds to stop a reader's planner."""

STALLING = f"""
    CREATE TABLE shop.unlocked ();
    CREATE FUNCTION shop.stall() RETURNS integer LANGUAGE plpgsql STABLE AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared({GATE});
        PERFORM FROM shop.unlocked;  -- a lock of its own: here the session takes in what others changed
        RETURN 0;
    END $$;
    CREATE FUNCTION shop.stalled(person bigint) RETURNS TABLE (g bigint, item_id integer, score double precision)
    LANGUAGE sql STABLE AS $$
        SELECT retail.generation(), v.item_id, -(v.preference OPERATOR(public.<#>) u.preference)
        FROM retail.user_vectors u CROSS JOIN retail.item_vectors v
        WHERE u.user_id = stalled.person AND v.users >= shop.stall()
        ORDER BY v.preference OPERATOR(public.<#>) u.preference, v.item_id LIMIT 10
    $$;
"""
"""The planner calls a STABLE function to estimate how many rows pass, after it has listed the partitions: so a session
can be stopped between planning, with the partitions of that moment, and execution, with a later snapshot."""


@dataclass
class Stalled:
    """A reader whose planner waits at the gate until `release`; its answer then, or its error."""

    database: Database
    rows: list[dict[str, Any]] | psycopg.Error | None = None

    def __post_init__(self) -> None:
        self.gate = self.database.connect()
        self.gate.execute("SELECT pg_advisory_lock(%s)", [GATE])
        self.connection = self.database.connect("application")
        self.connection.execute("SET plan_cache_mode = force_generic_plan")
        self.pid = self.connection.info.backend_pid

    def start(self, prepare: bool) -> None:
        self.thread = threading.Thread(target=self._ask, args=(prepare,))
        self.thread.start()
        waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND pid = %s"
        until(lambda: look(self.database, waiting, self.pid))

    def _ask(self, prepare: bool) -> None:
        try:
            self.rows = self.ask(prepare)
        except psycopg.Error as error:
            self.rows = error

    def ask(self, prepare: bool) -> list[dict[str, Any]]:
        statement = "SELECT t.g, t.item_id, t.score FROM shop.stalled(%(id)s) t"
        return self.connection.execute(statement, {"id": 1}, prepare=prepare).fetchall()

    def release(self) -> list[dict[str, Any]] | psycopg.Error | None:
        self.gate.execute("SELECT pg_advisory_unlock(%s)", [GATE])
        self.thread.join()
        return self.rows


@pytest.fixture
def stalled(made: Generations) -> Iterator[Stalled]:
    with made.database.connect("application") as connection:
        connection.execute(STALLING)
    stalled = Stalled(made.database)
    yield stalled
    stalled.gate.close()
    stalled.thread.join()


def right(made: Generations, rows: list[dict[str, Any]] | psycopg.Error | None, generation: int) -> bool:
    assert isinstance(rows, list), rows
    given = answer("ranked", 1, rows)
    return given[2] == (generation,) and not wrong(made, given)


@pytest.mark.contract
@pytest.mark.parametrize("waiting", [True, False])
def test_a_flip_waits_for_a_statement_planned_before_the_attach(
    shop: Database, made: Generations, stalled: Stalled, monkeypatch: pytest.MonkeyPatch, waiting: bool
) -> None:
    """Planned with the partitions of 1 and 2; 3 is attached; the snapshot comes with the execution. Without the waiting
    that snapshot sees 3 as the live one, and the plan has no partition for it."""
    if not waiting:
        monkeypatch.setattr(barriers, "advance", lambda *_: [])
    stalled.start(prepare=False)
    assert made.publish().generation == 2
    quick = shop.settings.model_copy(update={"flip_wait": 0, "prune_wait": 0})
    outcome = made.publish(quick)
    assert (outcome.generation, outcome.live) == (3, not waiting)
    if waiting:
        assert f"process {stalled.pid} " in outcome.blockers[0]
        assert right(made, stalled.release(), 2)
        assert jobs.publish(shop.url, shop.settings, "retail").live
    else:
        assert stalled.release() == [], "the scenario no longer shows what the waiting is for"
    assert right(made, stalled.ask(prepare=False), 3)


@pytest.mark.contract
@pytest.mark.parametrize("invalidating", [True, False])
def test_a_plan_that_missed_the_attach_is_replaced_before_the_flip(
    made: Generations, stalled: Stalled, monkeypatch: pytest.MonkeyPatch, invalidating: bool
) -> None:
    """The attach's invalidation arrives while the plan of an inlined function is being made, when nothing shows yet that
    the plan is about the parents. Its transaction ends before the flip, but the plan without the partition stays."""
    if not invalidating:
        monkeypatch.setattr(barriers, "invalidate", lambda *_: None)
    stalled.start(prepare=True)
    made.publish()
    assert right(made, stalled.release(), 2)
    answers = []
    hook = Hook(lambda stage: answers.append(stalled.ask(prepare=True)) if stage == "flip" else None)
    outcome = made.publish(reporter=hook)
    assert (outcome.generation, outcome.live) == (3, True)
    if invalidating:
        assert right(made, answers[0], 3)
    else:
        assert answers == [[]], "the scenario no longer shows what the second invalidation is for"
