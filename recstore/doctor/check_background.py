"""Checks of the workers: their broker, their last dispatch, and their settings."""

from collections.abc import Iterator

from recstore.background import health
from recstore.config import Settings
from recstore.doctor.findings import Finding, check, error, note, ok, warning
from recstore.doctor.subject import Subject
from recstore.errors import BrokerUnreachable, DispatchMissing


@check("process")
def broker(settings: Settings) -> Iterator[Finding]:
    if not settings.broker_url:
        yield ok("no broker is configured, and `recstore worker` needs none")
        return
    from recstore.background import messages  # imports redis-py, which only this check needs

    try:
        waiting = messages.queue_lengths(settings.broker_url, ["train", "default"])
    except BrokerUnreachable as problem:
        yield error(
            f"the broker could not be reached: {problem.reason}",
            "Celery's workers get no messages. Requests wait in the database, and none is lost. Start the broker, or name the"
            " right one in RECSTORE_BROKER_URL.",
        )
    else:
        yield ok("the broker answers; messages waiting: " + ", ".join(f"{queue} {n}" for queue, n in waiting.items()))


@check("process", well="no message is delivered again before its run's time limit")
def worker_settings(settings: Settings) -> Iterator[Finding]:
    if settings.broker_url and settings.visibility_timeout <= settings.time_limit:
        yield warning(
            f"RECSTORE_VISIBILITY_TIMEOUT ({settings.visibility_timeout:g} s) is not above RECSTORE_TIME_LIMIT"
            f" ({settings.time_limit:g} s)",
            "Redis delivers the message of a long run again while it runs. That is harmless, but has no effect.",
            f"RECSTORE_VISIBILITY_TIMEOUT={settings.time_limit + 7200:g}",
        )


@check("registry")
def dispatch(subject: Subject) -> Iterator[Finding]:
    seconds = health.last_dispatch(subject.connection)
    try:
        health.check_dispatch(subject.settings, seconds)
    except DispatchMissing as problem:
        needed = subject.row("doctor_background")
        counts = {"with a schedule": needed["scheduled"], "requests waiting": needed["waiting"]}
        waiting = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        start = "Run a worker; with Celery, beat and a worker of the queue `default` that is not busy with other jobs:"
        if seconds is None and not waiting:
            yield note(
                "no worker has looked for due work yet", f"Nothing here needs one so far. {start}", "recstore worker"
            )
        else:
            yield warning(
                problem.when,
                f"Schedules do not run, and nothing that was lost is retried ({waiting or 'nothing waits now'}). {start}",
                "recstore worker",
            )
    else:
        yield ok(f"the last dispatch was {seconds:.0f} s ago")
