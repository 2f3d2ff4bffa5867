"""The jobs that write every list from one snapshot, into a table or a file.

    snapshot -> items -> blocks of owners -> scores -> the k best -> rows -> a new table or file -> swapped for the old one

They only read the recommender, so they run next to a training without delaying it. A generation that goes live in the
meantime is for the next lists.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from recstore import registry
from recstore.errors import InvalidInput, NoCandidates, NoListTable
from recstore.lists import output, shapes, snapshots, tables
from recstore.lists.blocks import Block, Items, ListRows, Scoring
from recstore.lists.shapes import Shape
from recstore.lists.snapshots import Snapshot
from recstore.lists.tables import ListTable
from recstore.postgres.connection import Connection, connect, plain_errors, role_of
from recstore.publication import erasing
from recstore.runs import ListsRun, Summary, job
from recstore.sql import objects
from recstore.sql.generation import MIN_USERS
from recstore.sql.objects import Registered
from recstore.sql.schema_revision import require_current
from recstore.wording import counted, duration

Add = Callable[[Block, ListRows, Items], None]
"""Adds rows, whose items are positions in these Items."""

ANSWERS = 200
"""Users whom one statement asks recommend() for."""


@dataclass(frozen=True)
class Made:
    """Lists that were written: their number, and the rows in them."""

    run: int
    generation: int
    into: str
    lists: int
    rows: int
    seconds: float

    def __str__(self) -> str:
        return f"{counted(self.lists, 'list')} of generation {self.generation} in {self.into}."


@dataclass(frozen=True)
class ListsPlan:
    """The plan of a job: its SQL, and the number of owners of lists (users or items) and of items to list."""

    into: str
    generation: int
    owners: int
    items: int
    statements: tuple[str, ...]


@dataclass(frozen=True)
class _Wanted:
    """Lists to write, checked against the database."""

    shape: Shape
    into: str
    target: ListTable | Path
    k: int
    query: str | None  # of users; None: all
    min_users: int

    @property
    def similar(self) -> bool:
        return self.shape.command == "similar-all"

    def comment(self, recommender: Registered, generation: int) -> str:
        """Return the comment on the table, by which later lists recognize that they may replace it."""
        mark = objects.LISTS_MARK.format(command=self.shape.command, name=recommender.name)
        return f"{mark} generation {generation}, k {self.k}. The next one replaces this table."


@job("lists", kind=ListsRun, serves=False)
def recommend_all(run: ListsRun, into: str | Path, *, k: int = 20, users: str | None = None) -> Made:
    """Write the answers of `recommend(user, k)`, by exact scan, for every user of the live generation.

    `users` is a SELECT whose first column names other users, who may be unknown to the generation. `into` is schema.table,
    or a file with the ending .csv, .csv.gz or .parquet. Raises RecstoreError; existing lists then stay.
    """
    return _make(run, _wanted(run.connection, run.recommender, into, k, users=users))


@job("lists", kind=ListsRun, serves=False)
def similar_all(run: ListsRun, into: str | Path, *, k: int = 20, min_users: int = MIN_USERS) -> Made:
    """Write the answers of `similar_items(item, k, min_users)` for every item; otherwise like `recommend_all`."""
    return _make(run, _wanted(run.connection, run.recommender, into, k, similar=True, min_users=min_users))


@job("lists", kind=ListsRun)
def write_defined(run: ListsRun) -> list[Made]:
    """Write the tables that the recommender's definition names. Raises NoListTable if it names none."""
    defined = run.recommender.definition.lists
    named = [(into, into == defined.similar_into) for into in (defined.recommend_into, defined.similar_into) if into]
    if not named:
        raise NoListTable(name=run.name)
    wanted = [_wanted(run.connection, run.recommender, into, defined.k, similar=similar) for into, similar in named]
    made = [_make(run, each) for each in wanted]
    run.outcome = " ".join(map(str, made))
    return made


def plan(
    url: str,
    name: str,
    into: str | Path,
    *,
    similar: bool = False,
    k: int = 20,
    users: str | None = None,
    min_users: int = MIN_USERS,
) -> ListsPlan:
    """Return what `recommend_all` or `similar_all` would do, and raise what they raise. Changes nothing."""
    with closing(connect(url)) as connection, plain_errors(f"planning lists of {name!r}", connection):
        require_current(connection)
        recommender = registry.get(connection, name)
        wanted = _wanted(connection, recommender, into, k, similar=similar, users=users, min_users=min_users)
        with snapshots.snapshot(url, recommender, "recstore:lists", role_of(connection)) as snapshot:
            live, items = snapshot.live, _items(snapshot, wanted)
        statements = [] if similar else [snapshot.users_select(wanted.query).strip()]
        if isinstance(wanted.target, ListTable):
            statements += tables.planned(wanted.target, wanted.shape, wanted.comment(recommender, live.generation))
        listed = items.eligible & items.present if similar else items.eligible
        owners = _owners(connection, snapshot, wanted, items)
        return ListsPlan(wanted.into, live.generation, owners, int(listed.sum()), tuple(statements))


def _wanted(
    connection: Connection,
    recommender: Registered,
    into: str | Path,
    k: int,
    *,
    similar: bool = False,
    users: str | None = None,
    min_users: int = MIN_USERS,
) -> _Wanted:
    """Check the options and the target. Raises InvalidInput, ListTableRefused, ListsNotWritten, PermissionDenied."""
    shape = shapes.similar(recommender) if similar else shapes.recommended(recommender)
    query = None if users is None else snapshots.checked_query(connection, recommender, users)
    if k < 1:
        raise InvalidInput(f"k is {k}: the length of a list must be at least 1.")
    target: ListTable | Path
    if isinstance(into, Path) or output.is_file(into):
        target = output.check_place(str(into))
    else:
        target = tables.look_at(connection, recommender.name, into, shape)
    return _Wanted(shape, str(into), target, k, query, min_users)


def _make(run: ListsRun, wanted: _Wanted) -> Made:
    """Write one kind of lists, from the snapshot to the swap."""
    began = time.perf_counter()
    with ExitStack() as reads:
        role = role_of(run.connection)
        run.recommender = registry.get(run.connection, run.name)  # altered or resized, maybe, since the lists before
        snapshot = reads.enter_context(snapshots.snapshot(run.url, run.recommender, run.application_name, role))
        run.generation = snapshot.generation
        items = run.stage("read", _items, snapshot, wanted)
        write = _file if isinstance(wanted.target, Path) else _table
        with write(run, wanted, items, snapshot.live.snapshot) as add:
            scored = run.stage(wanted.shape.command, _score, run, snapshot, wanted, items, add)
            reads.close()  # from here on the generation may be pruned; vacuum waits for the new table's own transaction
    seconds = round(time.perf_counter() - began, 3)
    made = Made(run.number, items.generation, wanted.into, **scored.figures, seconds=seconds)
    run.outcome = str(made)
    return made


def _items(snapshot: Snapshot, wanted: _Wanted) -> Items:
    """Return the items and which of them may be listed. Raises NoCandidates where every list would be empty."""
    items = snapshot.items("embedding" if wanted.similar else "preference")
    name, definition = snapshot.recommender.name, snapshot.recommender.definition
    if definition.candidates.given and (wanted.similar or definition.simple_steps) and not items.eligible.any():
        raise NoCandidates(name=name, generation=items.generation)
    if wanted.similar:
        items.eligible[items.users < wanted.min_users] = False
    return items


def _owners(connection: Connection, snapshot: Snapshot, wanted: _Wanted, items: Items) -> int:
    """Return the number of users or items that get a list, for a query the planner's estimate."""
    if wanted.similar:
        return int(items.present.sum())
    return snapshot.live.users if wanted.query is None else snapshots.expected_users(connection, wanted.query)


def _score(run: ListsRun, snapshot: Snapshot, wanted: _Wanted, items: Items, add: Add) -> Summary:
    """Compute and add every list. While threads score a block, the previous one is written and the next one read."""
    total = _owners(run.connection, snapshot, wanted, items)
    simple = wanted.similar or run.recommender.definition.simple_steps
    if wanted.similar:
        blocks = snapshots.item_blocks(items)
        scoring = Scoring(items, wanted.k, run.settings.threads, most=1.0)
    else:
        blocks = snapshot.users(items, wanted.query)
        popular_users = snapshot.live.users if simple else None
        scoring = Scoring(
            items, wanted.k, run.settings.threads, popular_users=popular_users, ratings=snapshot.live.ratings
        )
    done = rows = owners = 0
    began = time.monotonic()
    asked: list[pa.Array] = []

    def added(block: Block, listed: ListRows, whose: Items, new: int) -> None:
        nonlocal done, rows, owners
        add(block, listed, whose)
        done += new
        rows += len(listed)
        owners += int((listed.rank == 1).sum())
        speed = done / max(time.monotonic() - began, 1e-3)
        left = f", {duration((total - done) / speed)} left" if speed and total > done else ""
        run.reporter.progress(wanted.shape.command, done, max(done, total), f"{speed:,.0f} lists a second{left}")

    with threadpool_limits(1, "blas"), scoring:
        for block, listed in scoring.lists(blocks):
            counts = np.bincount(listed.owner, minlength=len(block))
            short = np.flatnonzero(counts < wanted.k) if not simple else counts[:0]
            asked += [block.ids.take(pa.array(short[n : n + ANSWERS])) for n in range(0, len(short), ANSWERS)]
            full = listed.part(counts[listed.owner] == wanted.k) if len(short) else listed
            added(block, full, items, len(block) - len(short))
        for ids in asked:  # short lists continue with other steps
            added(Block.of(ids), *snapshot.answered(ids, items, wanted.k), len(ids))
    return Summary(f"{counted(rows, 'row')} in {counted(owners, 'list')}", {"lists": owners, "rows": rows})


@contextmanager
def _table(run: ListsRun, wanted: _Wanted, items: Items, read_in: str) -> Iterator[Add]:
    """Yield a function that adds rows to a new table, which replaces the old one at the end, without the users erased since the
    snapshot."""
    assert isinstance(wanted.target, ListTable)
    shape, comment = wanted.shape, wanted.comment(run.recommender, items.generation)
    with tables.replacing(run, wanted.target, shape, comment, read_in) as write:
        yield lambda block, rows, listed: write(shape.copied(listed, block, rows), len(rows), None)


@contextmanager
def _file(run: ListsRun, wanted: _Wanted, items: Items, read_in: str) -> Iterator[Add]:
    """Yield a function that adds rows to a new file, which replaces the old one at the end."""
    assert isinstance(wanted.target, Path)
    batch = wanted.shape.batches(items)
    with output.writing(wanted.target, wanted.shape.arrow) as write:
        yield lambda block, rows, listed: write(
            (batch if listed is items else wanted.shape.batches(listed))(block, rows)
        )
    if not wanted.similar and (warning := erasing.remain_in_file(run.connection, run.recommender, read_in)):
        run.warn(warning)
