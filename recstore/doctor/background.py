"""The workers: their broker, whether they look for what is due, and their settings."""

from collections.abc import Iterator

from recstore.background import health
from recstore.config import Settings
from recstore.doctor.checks import check
from recstore.doctor.findings import Finding, error, note, ok, warning
from recstore.doctor.subject import Subject
from recstore.embedded import configured
from recstore.errors import BrokerUnreachable, DispatchMissing


@check("broker", "background", "process")
def broker(settings: Settings) -> Iterator[Finding]:
    from recstore.background import broker  # redis-py, which only this check needs

    try:
        waiting = broker.queue_lengths(configured.broker_url(settings), ["train", "default"])
    except BrokerUnreachable as problem:
        if settings.broker_url:
            yield error(
                f"the broker could not be reached: {problem.reason}",
                "Workers get no messages. What is asked for waits in the database, and nothing of it is lost. Start the"
                " broker, or name the right one in RECSTORE_BROKER_URL.",
            )
        else:
            yield note(
                "no broker is configured, and none runs here",
                "Only workers need one, for schedules and requests. `recstore up` brings its own; otherwise name a Redis:",
                "RECSTORE_BROKER_URL=redis://:PASSWORD@HOST/0",
            )
    else:
        yield ok("the broker answers; messages waiting: " + ", ".join(f"{queue} {n}" for queue, n in waiting.items()))


@check("worker-settings", "background", "process")
def worker_settings(settings: Settings) -> Iterator[Finding]:
    if settings.visibility_timeout <= settings.time_limit:
        yield warning(
            f"RECSTORE_VISIBILITY_TIMEOUT ({settings.visibility_timeout:g} s) is not above RECSTORE_TIME_LIMIT"
            f" ({settings.time_limit:g} s)",
            "Redis delivers the message of a long run again, while it runs. That does no harm, but is in vain.",
            f"RECSTORE_VISIBILITY_TIMEOUT={settings.time_limit + 7200:g}",
        )
    else:
        yield ok("a message is not delivered again before its run's time is up")


@check("dispatch", "background", own=True)
def dispatch(subject: Subject) -> Iterator[Finding]:
    seconds = health.last_dispatch(subject.connection)
    needed = subject.row("doctor_background")
    try:
        health.check_dispatch(subject.settings, seconds)
    except DispatchMissing as problem:
        waits = [
            f"{count} {what}"
            for count, what in ((needed["scheduled"], "with a schedule"), (needed["waiting"], "requests waiting"))
            if count
        ]
        means = "Run beat and a worker of the queue `default` that is not busy with something else; on one machine:"
        if seconds is None and not waits:
            yield note(
                "no worker has looked for due work yet", f"Nothing here needs one so far. {means}", "recstore up"
            )
        else:
            yield warning(
                problem.when,
                f"Schedules stand still, and nothing that was lost is tried again ({', '.join(waits) or 'nothing waits now'})."
                f" {means}",
                "recstore up",
            )
    else:
        yield ok(f"the last dispatch was {seconds:.0f} s ago")
