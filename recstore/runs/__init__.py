"""One attempt at a job: `run` its row, fence and stages, `locks` its lock, `reporter` what it reports, `tracing` its
trace, `job` how it is begun."""

from recstore.runs.job import Job, job
from recstore.runs.locks import (
    BUILD_LOCK,
    LISTS_NAMESPACE,
    LOCK_NAMESPACE,
    give_lock,
    lock_holder,
    lock_keys,
    take_lock,
)
from recstore.runs.reporter import Described, Recorder, Reporter, Silent, Summary, described
from recstore.runs.run import ListsRun, Run, abandon, wal

__all__ = [
    "BUILD_LOCK",
    "LISTS_NAMESPACE",
    "LOCK_NAMESPACE",
    "Described",
    "Job",
    "ListsRun",
    "Recorder",
    "Reporter",
    "Run",
    "Silent",
    "Summary",
    "abandon",
    "described",
    "give_lock",
    "job",
    "lock_holder",
    "lock_keys",
    "take_lock",
    "wal",
]
