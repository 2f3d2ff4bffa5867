"""Calibration: for each kind of query, the cheapest plan that returns what an exact scan returns.

No fixed index setting is right (design: calibration): HNSW on the inner product gives 0.98 of the exact list at one
ef_search for one catalogue and 0.77 for another. So a sample of real queries is asked both ways, on the generation's own
tables through the function that will answer them, before it goes live.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psycopg.types.json import Jsonb

from recstore import registry
from recstore.definition import Search
from recstore.postgres.connection import Connection
from recstore.publication import generations, indexes
from recstore.publication.indexes import DENSER, Graph
from recstore.runs import Run
from recstore.source import candidates
from recstore.sql.queries import query as named

LADDER = (40, 100, 200, 400, 800)
K = 10
FEW = 10
"""Candidates below which a calibration says so."""

TIE = 1e-5
"""Relative difference of distances below which two rows are one place in the list."""


@dataclass(frozen=True)
class Query:
    """One sampled question: the vector as text, and the ids that the answer must not contain."""

    vector: str
    excluded: list[Any]


SEARCHED = {"recommend": ("items", "preference"), "similar": ("items", "embedding"), "users": ("users", "preference")}
"""Kind of query -> the side and the column that answer it."""


@dataclass(frozen=True)
class Kind:
    """A kind of query, the rows it searches, and sampled questions."""

    name: str
    rows: int
    queries: Sequence[Query]

    @property
    def side(self) -> str:
        return SEARCHED[self.name][0]

    @property
    def column(self) -> str:
        return SEARCHED[self.name][1]


def recommending(rows: int, queries: Sequence[Query]) -> Kind:
    """The kind "recommend": each question also with nothing left out, as an application's own query asks it. It can be the
    harder one, since a scan that leaves rows out goes on for longer."""
    return Kind("recommend", rows, [*queries, *(Query(query.vector, []) for query in queries)])


@dataclass(frozen=True)
class Trial:
    """What one plan gave: ef None is the exact scan; seconds are the median of one query; ANN recall the lesser one of the
    questions that leave something out and those that do not."""

    ef: int | None
    m: int | None
    ann_recall: float
    milliseconds: float


@dataclass(frozen=True)
class Calibrated:
    """The choice for one kind of query, and what it was chosen from."""

    kind: str
    chosen: Trial
    trials: tuple[Trial, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"chosen": asdict(self.chosen), "trials": [asdict(trial) for trial in self.trials]}


OnTrial = Callable[[str, Trial], None]


def calibrate(
    run: Run,
    generation: int,
    kind: Kind,
    search: Search,
    ann_recall: float,
    on_trial: OnTrial,
    *,
    built: Graph | None = None,
    live: bool = False,
) -> Calibrated:
    """Chooses the plan of one kind of query, leaving an HNSW index only where the plan uses it.

    `search` "exact" builds none; "hnsw" takes the index whenever it reaches `ann_recall`, "auto" where it is faster
    besides. The index is built anew with a denser graph once before it is given up. `built` is the graph of an index that
    is there already, `live` says that the generation has readers, whom nothing here makes wait. Questions are asked of every
    item, candidates or not: how many are eligible changes from one moment to the next, and the function sees to that.
    """
    exact, lists = _measure(run, generation, kind, None, None)
    trials = [exact]
    on_trial(kind.name, exact)
    if search == "exact" or kind.rows <= K:
        if built:
            _drop(run, generation, kind)
        return Calibrated(kind.name, exact, tuple(trials))
    for graph in (built or Graph(), DENSER) if built != DENSER else (DENSER,):
        if graph != built:
            indexes.build_hnsw(run, generation, kind.side, kind.column, kind.rows, graph, live=live)
        chosen = None
        for ef in LADDER:  # the first rung that reaches the wanted ANN recall
            trial, _ = _measure(run, generation, kind, ef, graph, lists)
            trials.append(trial)
            on_trial(kind.name, trial)
            if trial.ann_recall >= ann_recall:
                chosen = trial
                break
        too_slow = search == "auto" and chosen is not None and chosen.milliseconds >= exact.milliseconds
        if chosen is not None and not too_slow:
            return Calibrated(kind.name, chosen, tuple(trials))
        if not _drop(run, generation, kind) or too_slow:
            break  # a denser graph would be slower still
    if search == "hnsw":
        run.warn(f"HNSW did not reach ANN recall@{K} {ann_recall:g} for {kind.name} queries: they use the exact scan.")
    return Calibrated(kind.name, exact, tuple(trials))


def calibrate_all(
    run: Run, generation: int, kinds: Sequence[Kind], built: dict[str, Graph] | None = None, *, live: bool = False
) -> dict[str, Any]:
    """Calibrates each kind of query and writes the choices where the functions read them; returns kind -> chosen plan.
    `built` as in `calibrate`, by kind."""
    publication = run.recommender.definition.publication
    items_search = _search_among_candidates(run, generation, publication.search)
    results = []
    for number, kind in enumerate(kinds):
        run.reporter.progress("calibrate", number, len(kinds), kind.name)

        def on_trial(name: str, trial: Trial, number: int = number) -> None:
            plan = "exact scan" if trial.ef is None else f"ef_search {trial.ef}"
            run.reporter.progress(
                "calibrate", number, len(kinds), f"{name}, {plan}: ANN recall@{K} {trial.ann_recall:.3f}"
            )

        run.check("calibrate")
        results.append(
            calibrate(
                run,
                generation,
                kind,
                items_search if kind.side == "items" else publication.search,
                publication.ann_recall,
                on_trial,
                built=(built or {}).get(kind.name),
                live=live,
            )
        )
    run.reporter.progress("calibrate", len(kinds), len(kinds))
    store(run.connection, generation, results)
    return {result.kind: result.as_dict()["chosen"] for result in results}


def _search_among_candidates(run: Run, generation: int, search: Search) -> Search:
    """Warns where hardly an item is a candidate, and where asking that reaches no index: then no index scan asks it of each
    row, since one join answers for all. The candidates are those of now: they may have been altered since the run began."""
    recommender = registry.get(run.connection, run.name)
    if not recommender.definition.candidates.given:
        return search
    table = generations.table(recommender, "items", generation)
    found = candidates.eligible(run.connection, recommender, table)
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


def _drop(run: Run, generation: int, kind: Kind) -> bool:
    dropped = indexes.drop_hnsw(run, generation, kind.side, kind.column)
    if not dropped:
        run.warn(
            f"The unused index on {kind.column} of generation {generation} is left invalid: a transaction holds its table."
        )
    return dropped


def _measure(
    run: Run,
    generation: int,
    kind: Kind,
    ef: int | None,
    graph: Graph | None,
    exact: list[list[float]] | None = None,
) -> tuple[Trial, list[list[float]]]:
    """Asks every sampled query with one plan; the part of the exact lists found, by distance so that ties count once."""
    connection, recommender = run.connection, run.recommender
    one = {"items": recommender.item_type, "users": recommender.user_type}[kind.side].value
    statement = (
        "SELECT ARRAY(SELECT n.distance FROM unnest(s.nearest) n ORDER BY 1) AS distances"  # noqa: S608
        f" FROM (SELECT {recommender.schema}._nearest_{kind.side}("
        f"%s, %s, %s::{recommender.vector}, {K}, %s::{one}[], NULL, %s, true) AS nearest OFFSET 0) s"
    )
    times, answers = [], []
    for query in kind.queries:
        start = time.perf_counter()
        row = connection.execute(statement, [generation, kind.column, query.vector, query.excluded, ef]).fetchone()
        times.append(1000 * (time.perf_counter() - start))
        assert row is not None
        answers.append(row["distances"])
    found: dict[bool, list[int]] = {}
    for query, mine, best in zip(kind.queries, answers, exact if exact is not None else answers, strict=True):
        if best:
            limit = best[-1] + TIE * max(abs(best[-1]), 1e-12)
            counts = found.setdefault(bool(query.excluded), [0, 0])
            counts[0] += sum(distance <= limit for distance in mine)
            counts[1] += len(best)
    milliseconds = round(statistics.median(times), 3) if times else 0.0
    recall = round(min((hits / total for hits, total in found.values()), default=1.0), 4)
    return Trial(ef, graph.m if graph else None, recall, milliseconds), answers


def store(connection: Connection, generation: int, calibrated: Sequence[Calibrated]) -> None:
    """Writes the choices where the functions read them."""
    by_kind = {result.kind: result for result in calibrated}
    efs = {
        f"{kind}_ef": by_kind[kind].chosen.ef if kind in by_kind else None for kind in ("recommend", "similar", "users")
    }
    connection.execute(
        named("store_calibration"),
        efs | {"generation": generation, "calibration": Jsonb({k: r.as_dict() for k, r in by_kind.items()})},
    )
