"""The whole job of a refresh, in order:

    source -> interactions -> filters -> changed items, then all users, solved -> what differs -> the live generation

No transaction is open while Python computes.
"""

from dataclasses import dataclass

from recstore import pipeline
from recstore.model import filters, refreshed
from recstore.operations import jobs
from recstore.postgres.connection import plain_errors
from recstore.publication import admission, refreshing
from recstore.runs import Run, job


@dataclass(frozen=True)
class Refreshed:
    """The end of a refresh: the live generation, and the numbers of users and items that it stored in it."""

    run: int
    generation: int
    users: int
    items: int
    warnings: tuple[str, ...]


@job()
def refresh(run: Run) -> Refreshed:
    """Store in the live generation what has changed since: items with other interactions, and all users that differ.

    Nothing is trained or published, and readers see all of it at once. Raises NotTrained, RefreshRefused, SourceShrunk,
    RefreshOvertaken and the errors of reading the source.
    """
    key, dimensions = run.recommender.held_out_key, run.recommender.dimensions
    with plain_errors(f"looking at the views of {run.name!r}", run.connection):
        jobs.check_views(run)
    run.stage("prepare", refreshing.prepare, run)
    live = run.stage("read live", refreshing.read, run)
    trained_by = live.model.definition  # as the functions fold in, whatever the definition says by now
    pulled = run.stage("read", pipeline.read_source, run, trained_by)
    admission.check_source(run, pulled.report, force=False)
    interactions, _ = run.stage("filter", filters.apply, pulled.interactions, trained_by.filters, live.model.items)
    solved = run.stage("solve", refreshed.solve, live, interactions, key, dimensions, run.settings.threads)
    changes = run.stage("compare", refreshing.compare, run, live, solved)
    run.stage("store", refreshing.store, run, live, solved, changes, pulled.interactions, pulled.snapshot["snapshot"])
    if run.stage("measure", refreshing.declined, run).figures["kinds"]:
        jobs.rebuild_indexes(run)
    run.outcome = f"Generation {run.generation.number} is refreshed: {changes}."
    return Refreshed(run.number, run.generation.number, len(changes.users), changes.items, tuple(run.warnings))
