"""Choose for each kind of query the cheapest plan that returns what an exact scan returns.

No fixed index setting is right (design: calibration): HNSW on the inner product gives 0.98 of the exact list at one
ef_search for one catalogue and 0.77 for another. Before a generation goes live, a sample of real queries is run both ways on
its own tables, through the function that will answer them.
"""

import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import psycopg
from psycopg.types.json import Jsonb

from recstore import registry
from recstore.definition import Search
from recstore.errors import RecstoreError
from recstore.postgres.connection import Connection, connect, one_line, reading_application
from recstore.publication import indexes
from recstore.publication.indexes import DENSER, Graph
from recstore.runs import Run
from recstore.source import candidates
from recstore.sql import queries
from recstore.sql.generation import MIN_USERS, Generation, Side

LADDER = (100, 200, 400, 800)
"""Values of ef_search to try. At 40, pgvector's default, single users outside the sample got nothing right."""

K = 10

LEAST = 0.5
"""Share of its exact list that each sampled query must get."""

FEW = 10
"""Number of candidates below which a calibration warns."""

TIE = 1e-5
"""Relative difference of distances below which two rows share a rank."""

ROUNDED = {"embedding": 0.1, "preference": 1e-12}
"""Distance below which TIE is of this distance, by column: a cosine distance is a difference from 1 in single precision."""

TIMED = 12
"""Number of queries that run alone, whose time counts; of the exact scan no others run."""

AT_ONCE = 10
"""Number of queries that each session runs before the plan may be ruled out."""

FIRST = 50
"""Number of queries, at least, whose mean can rule a plan out."""

MOST_SESSIONS = 4


SEARCHED: dict[str, tuple[Side, str]] = {
    "recommend": ("items", "preference"),
    "similar": ("items", "embedding"),
    "users": ("users", "preference"),
}
"""The side and the column that each kind of query searches."""


class Query(NamedTuple):
    """A sampled query: the vector as text, and the ids that the answer must not contain."""

    vector: str
    excluded: list[Any]


@dataclass(frozen=True)
class Kind:
    """A kind of query, the number of rows it searches, and the sampled queries, in random order."""

    name: str
    rows: int
    queries: list[Query]

    @property
    def side(self) -> Side:
        return SEARCHED[self.name][0]

    @property
    def column(self) -> str:
        return SEARCHED[self.name][1]

    @property
    def min_users(self) -> int | None:
        """The filter that applications use unless they set another: the more items it hides, the wider the search has to be."""
        return MIN_USERS if self.name == "similar" else None


@dataclass(frozen=True)
class PlanTrial:
    """The measurement of one plan. `ef` None is the exact scan, `milliseconds` the median of a query.

    `ann_recall` and `margin`, two standard errors of it, are of the queries with or those without exclusions, whichever have
    the lower difference. `worst` is the share of its exact list that the worst query got. `queries` were measured: of a plan
    that is ruled out early, not all.
    """

    ef: int | None
    m: int | None
    ann_recall: float
    milliseconds: float
    margin: float = 0.0
    worst: float = 1.0
    queries: int = 0

    def reaches(self, ann_recall: float) -> bool:
        """Return whether queries outside the sample can be expected to get this ANN recall, and no query loses its list."""
        return self.ann_recall - self.margin >= ann_recall and self.worst >= LEAST

    def __str__(self) -> str:
        return plan_words(asdict(self))


def plan_words(chosen: dict[str, Any]) -> str:
    """Describe a stored choice of a plan."""
    if chosen["ef"] is None:
        return f"exact scan, {chosen['milliseconds']} ms"
    return f"HNSW at ef_search {chosen['ef']}, ANN recall@10 {chosen['ann_recall']:.3f}, {chosen['milliseconds']} ms"


@dataclass(frozen=True)
class Plans:
    """The chosen plan of each kind of query."""

    chosen: dict[str, PlanTrial]

    def details(self) -> dict[str, Any]:
        return {kind: asdict(trial) for kind, trial in self.chosen.items()}

    def __str__(self) -> str:
        return "; ".join(f"{kind}: {trial}" for kind, trial in self.chosen.items())


def calibrate(run: Run, built: dict[str, Graph] | None = None, *, live: bool = False) -> Plans:
    """Choose the plan of each kind of query on sampled users and items, and store it where the functions read it.

    `built` are the graphs of existing indexes, by kind; `live` says that the generation has readers, whom no step may block.
    """
    publication = run.recommender.definition.publication
    items_search = _search_among_candidates(run, publication.search)
    kinds, results = _kinds(run), {}
    with _sessions(run) as sessions:
        for number, kind in enumerate(kinds):
            report = partial(run.reporter.progress, "calibrate", number, len(kinds))
            report(kind.name)
            run.check("calibrate")
            search = items_search if kind.side == "items" else publication.search
            results[kind.name] = _choose(run, sessions, kind, search, (built or {}).get(kind.name), live, report)
    run.reporter.progress("calibrate", len(kinds), len(kinds))
    efs = {f"{kind}_ef": results[kind][0].ef if kind in results else None for kind in SEARCHED}
    stored = {
        kind: {"chosen": asdict(chosen), "trials": [asdict(trial) for trial in trials]}
        for kind, (chosen, trials) in results.items()
    }
    queries.run(run.connection, "store_calibration", **efs, generation=run.generation.number, calibration=Jsonb(stored))
    return Plans({kind: chosen for kind, (chosen, _) in results.items()})


def declined(run: Run) -> list[str]:
    """Return the kinds of query whose index no longer reaches the wanted ANN recall at the ef_search chosen for it."""
    publication, chosen = (
        run.recommender.definition.publication,
        queries.one(run.connection, "select_calibration", generation=run.generation.number),
    )
    found = []
    report = partial(run.reporter.progress, "measure", 0, 1)
    with _sessions(run) as sessions:
        for kind in _kinds(run):
            ef = chosen[f"{kind.name}_ef"]
            if ef and not _measure(run, sessions, kind, ef, None, _exact(run, kind), report).reaches(
                publication.ann_recall
            ):
                found.append(kind.name)
    return found


@contextmanager
def _sessions(run: Run) -> Iterator[list[Connection]]:
    """Yield as many sessions as processes that build an index, if the server has them left; the first is the run's own."""
    with ExitStack() as stack:
        sessions = [run.connection]
        with suppress(RecstoreError):
            for _ in range(min(run.settings.index_workers, MOST_SESSIONS - 1)):
                sessions.append(stack.enter_context(connect(run.url, run.application_name)))
        yield sessions


def _kinds(run: Run) -> list[Kind]:
    """Sample the queries of each kind from the generation's own tables.

    "recommend" has each query once more without exclusions, as an application's own query runs it. That can be the harder
    one: a scan that skips rows continues for longer. "users" has users and items as queries: items lie elsewhere than users,
    and are harder to find users for.
    """
    items, users = run.generation.items, run.generation.users
    rows = run.connection.execute(
        f"SELECT (SELECT count(v.embedding) FROM {items} v) AS items, (SELECT count(v.preference) FROM {users} v) AS users"  # noqa: S608
    ).fetchone()
    assert rows is not None
    people, products = _sample(run, users, "user_id", "preference"), _sample(run, items, "item_id", "embedding")
    seen = _seen(run, list(people))
    asked = [Query(vector, excluded) for user, vector in people.items() for excluded in ([], seen.get(user, []))]
    kinds = [
        Kind("recommend", rows["items"], asked),
        Kind("similar", rows["items"], [Query(vector, [item]) for item, vector in products.items()]),
    ]
    if run.recommender.definition.publication.index_users:
        asked = [Query(vector, [user]) for user, vector in people.items()]  # similar_users, then users_for_item
        asked += [Query(vector, []) for vector in _sample(run, items, "item_id", "preference").values()]
        random.Random(run.number).shuffle(asked)
        kinds.append(Kind("users", rows["users"], asked))
    return kinds


def _sample(run: Run, table: str, identifier: str, column: str) -> dict[Any, str]:
    """Return the vectors, as text, of rows that differ from run to run, by their ids, in random order.

    200 of 200,000 vectors take 0.07 s, without the inner query, which writes no vector as text, 0.36 s."""
    rows = run.connection.execute(
        f"SELECT v.{identifier} AS id, v.{column}::text AS vector FROM {table} v WHERE v.{identifier} IN"  # noqa: S608
        f" (SELECT s.{identifier} FROM {table} s WHERE s.{column} IS NOT NULL"
        f" ORDER BY hashtextextended(s.{identifier}::text, %(seed)s), s.{identifier} LIMIT %(count)s)"
        f" ORDER BY hashtextextended(v.{identifier}::text, %(seed)s), v.{identifier}",
        {"seed": run.number, "count": run.settings.calibration_questions},
    ).fetchall()
    return {row["id"]: row["vector"] for row in rows}


def _seen(run: Run, users: list[Any]) -> dict[Any, list[Any]]:
    """Return the items that these users have seen, as recommend() excludes them; none if the source cannot be read."""
    recommender, generation = run.recommender, run.generation
    size = queries.one(run.connection, "generation_size", generation=generation.number)
    seen_in = generation.seen if size["seen_published"] else recommender.relation("interactions")
    if not users:
        return {}
    try:
        with reading_application(run.connection, run.settings.source_timeout):
            rows = run.connection.execute(
                f"SELECT s.user_id, array_agg(s.item_id) AS ids FROM {seen_in} s"  # noqa: S608
                f" WHERE s.user_id = ANY (%s::{recommender.user_type.value}[]) AND s.item_id IS NOT NULL GROUP BY s.user_id",
                [users],
            ).fetchall()
    except psycopg.DatabaseError as error:
        if run.connection.closed:
            raise
        run.warn(f"Calibrated as if no user had seen anything, since the source cannot be read: {one_line(error)}.")
        return {}
    if not rows:
        run.warn(f"None of {len(users)} sampled users is in the source now. Does {generation} belong to this source?")
    return {row["user_id"]: row["ids"] for row in rows}


def _choose(
    run: Run,
    sessions: list[Connection],
    kind: Kind,
    search: Search,
    built: Graph | None,
    live: bool,
    report: Callable[[str], None],
) -> tuple[PlanTrial, list[PlanTrial]]:
    """Choose the plan of one kind of query, keeping an HNSW index only where the plan uses it; return it and all that were
    tried.

    `search` "exact" builds none, "hnsw" takes the index if it reaches the wanted ANN recall, "auto" if it is also faster.
    For queries outside the sample the mean has to exceed it by two standard errors, and each query has to get half of its
    list. An index that does not reach it is built once more with a denser graph. Queries run over all items, candidates or not:
    the eligible share changes at any time, and the function handles it.
    """
    ann_recall = run.recommender.definition.publication.ann_recall
    lists = _exact(run, kind)
    exact = _measure(run, sessions, kind, None, None, lists, report)
    trials = [exact]
    if search == "exact" or kind.rows <= K:
        if built:
            _drop(run, kind)
        return exact, trials
    for graph in (built or Graph(), DENSER) if built != DENSER else (DENSER,):
        if graph != built:
            indexes.build_hnsw(run, kind.side, kind.column, kind.rows, graph, live=live)
        chosen = None
        for ef in LADDER:  # the first step that reaches it
            trial = _measure(run, sessions, kind, ef, graph, lists, report)
            trials.append(trial)
            if trial.reaches(ann_recall):
                chosen = trial
                break
        too_slow = search == "auto" and chosen is not None and chosen.milliseconds >= exact.milliseconds
        if chosen is not None and not too_slow:
            return chosen, trials
        if not _drop(run, kind) or too_slow:
            break  # a denser graph would be slower still
    if search == "hnsw":
        run.warn(f"HNSW did not reach ANN recall@{K} {ann_recall:g} for {kind.name} queries: they use the exact scan.")
    return exact, trials


def _search_among_candidates(run: Run, search: Search) -> Search:
    """Warn if few items are candidates, or if no index serves the lookup of one; return the search to use for items.

    Without that index the lists come by exact scan, where one join filters all rows. The definition is read again: the
    candidates may have been altered since the run began.
    """
    recommender = registry.get(run.connection, run.name)
    if not recommender.definition.candidates.given:
        return search
    found = candidates.eligible(run.connection, recommender, run.generation.items, run.settings.source_timeout)
    run.reporter.progress("calibrate", 0, 1, f"{found.eligible} of {found.items} items are candidates")
    if found.eligible < FEW:
        run.warn(f"Of the {found.items:,} items {found.eligible:,} are candidates now; nothing else is recommended.")
    if search != "exact" and not candidates.looked_up_by_index(run.connection, recommender):
        run.warn(
            "Whether one item is a candidate is not found through an index, so lists of items come by exact scan. Add an index"
            f" on the column of item ids that the candidates are selected by, then: recstore reindex {run.name}"
        )
        return "exact"
    return search


def _drop(run: Run, kind: Kind) -> bool:
    dropped = indexes.drop_hnsw(run, kind.side, kind.column)
    if not dropped:
        run.warn(
            f"The unused index on {kind.column} of {run.generation} is left invalid: a transaction holds its table."
        )
    return dropped


def _exact(run: Run, kind: Kind) -> list[list[float]]:
    from recstore.publication import exact_lists  # with NumPy and Arrow, for those who calibrate

    return exact_lists.distances(run, kind.side, kind.column, kind.queries, K, kind.min_users)


def _measure(
    run: Run,
    sessions: list[Connection],
    kind: Kind,
    ef: int | None,
    graph: Graph | None,
    exact: list[list[float]],
    report: Callable[[str], None],
) -> PlanTrial:
    """Run the sampled queries with one plan, until it is ruled out, through the function that will answer them.

    ANN recall compares distances with those of the exact lists, so that ties count once.
    """
    recommender = run.recommender
    one = {"items": recommender.item_type, "users": recommender.user_type}[kind.side].value
    statement = (
        "SELECT ARRAY(SELECT n.distance FROM unnest(s.nearest) n ORDER BY 1) AS distances"  # noqa: S608
        f" FROM (SELECT {recommender.schema}._nearest_{kind.side}("
        f"%s, %s, %s::{recommender.vector}, {K}, %s::{one}[], %s, %s, true) AS nearest OFFSET 0) s"
    )
    ann_recall, number = run.recommender.definition.publication.ann_recall, run.generation.number
    groups = Counter(bool(query.excluded) for query in kind.queries)
    times: list[float] = []
    found: dict[bool, list[float]] = {}

    def ask(connection: Connection, queries: Sequence[tuple[Query, list[float]]]) -> None:
        for query, best in queries:
            start = time.perf_counter()
            row = connection.execute(
                statement, [number, kind.column, query.vector, query.excluded, kind.min_users, ef]
            ).fetchone()
            times.append(1000 * (time.perf_counter() - start))
            assert row is not None
            if best:
                limit = best[-1] + TIE * max(abs(best[-1]), ROUNDED[kind.column])
                share = sum(distance <= limit for distance in row["distances"] or ()) / len(best)
                found.setdefault(bool(query.excluded), []).append(share)

    queries = list(zip(kind.queries, exact, strict=True))
    ask(run.connection, queries[:TIMED])
    milliseconds = round(statistics.median(times), 3) if times else 0.0
    step = len(sessions) * AT_ONCE
    with ThreadPoolExecutor(len(sessions)) as threads:
        for start in range(TIMED, len(queries) if ef else 0, step):
            if any(ruled_out(group, groups[excluding], ann_recall) for excluding, group in found.items()):
                break
            parts = [queries[start : start + step][place :: len(sessions)] for place in range(len(sessions))]
            list(threads.map(ask, sessions, parts))
    measured = [(statistics.fmean(one), _two_standard_errors(one), min(one)) for one in found.values()]
    recall, margin, _ = min(measured, key=lambda one: one[0] - one[1], default=(1.0, 0.0, 1.0))
    worst = min((one[2] for one in measured), default=1.0)
    report(f"{kind.name}, {'exact scan' if ef is None else f'ef_search {ef}'}: ANN recall@{K} {recall:.3f}")
    return PlanTrial(
        ef, graph.m if graph else None, round(recall, 4), milliseconds, round(margin, 4), round(worst, 2), len(times)
    )


def ruled_out(first: Sequence[float], size: int, ann_recall: float) -> bool:
    """Return whether a sample of this size that begins with these values will hardly reach this ANN recall.

    A query that lost its list decides. Else the mean decides, less the margin of the whole sample, plus two standard errors of
    its difference from the mean of the whole sample.
    """
    count = len(first)
    if min(first) < LEAST:
        return True
    if count < FIRST or count >= size:
        return False
    deviation = statistics.stdev(first)
    expected = statistics.fmean(first) - 2 * deviation / size**0.5
    return bool(expected + 2 * deviation * (1 / count - 1 / size) ** 0.5 < ann_recall)


def _two_standard_errors(values: list[float]) -> float:
    """Return two standard errors of the mean of a sample."""
    return float(2 * statistics.stdev(values) / len(values) ** 0.5) if len(values) > 1 else 0.0


def indexed(connection: Connection, generation: Generation) -> list[tuple[Side, str]]:
    """Return the (side, column) whose stored plan uses an HNSW index."""
    row = queries.one(connection, "select_calibration", generation=generation.number)
    return [SEARCHED[kind] for kind in SEARCHED if row[f"{kind}_ef"]]
