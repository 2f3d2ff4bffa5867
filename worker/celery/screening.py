"""Screen what comes from the broker: whatever is not a message for one of recstore's tasks is logged in one line and removed.

Everyone who reaches the broker can put anything into its lists. Celery ends the worker at some of it and puts the message
back, so that it ends the next worker too.
"""

import logging
import re
from collections.abc import Callable
from queue import Empty
from typing import Any

from celery.utils.time import maybe_iso8601
from kombu.exceptions import InconsistencyError
from kombu.transport import TRANSPORT_ALIASES, redis
from redis import RedisError, ResponseError

log = logging.getLogger(__name__)

LARGEST = 64 * 1024
"""Characters that the body of a message may have; recstore's own have about a hundred."""

BRIEF = 200
"""Characters of a message that the log quotes."""

LONGEST_ID = 255
"""Characters that the id of a message may have."""

LONGEST_LIMIT = 10**9
"""Seconds that a message may allow its task."""

BROKER_ERRORS = (RedisError, OSError, InconsistencyError, Empty)
"""Errors of the connection, after which Celery connects again."""


class Malformed(Exception):
    """A message is not one for a task of recstore's; the text says why."""


def install() -> None:
    """Let Celery use the transports below for its URLs of Redis."""
    TRANSPORT_ALIASES["redis"] = TRANSPORT_ALIASES["rediss"] = f"{__name__}:Transport"
    TRANSPORT_ALIASES["sentinel"] = f"{__name__}:SentinelTransport"


def removed(place: str, error: Exception) -> None:
    """Log the one line."""
    why = str(error) if isinstance(error, Malformed) else f"{type(error).__name__}: {error}"
    log.error("%s: removed a message that recstore cannot use: %s", place, brief(why))


def brief(value: object) -> str:
    """Return the beginning of a text."""
    text = str(value)
    return text if len(text) <= BRIEF else f"{text[:BRIEF]}.."


class _QoS(redis.QoS):
    """Acknowledges messages, and puts those back whose worker has died."""

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        except RedisError as error:  # Celery connects again; otherwise the worker would take no further message
            raise BrokenPipeError(str(error)) from error

    def restore_by_tag(self, tag: bytes, client: Any = None, leftmost: bool = False) -> None:
        try:
            super().restore_by_tag(tag, client, leftmost)
        except BROKER_ERRORS:
            raise
        except Exception as error:
            removed("unacknowledged", error)
            self._remove_from_indices(tag).execute()


class _Channel:
    """Screens each message of a channel, and removes one at which anything fails."""

    QoS = _QoS

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        try:  # connects again later where it may not write
            self.client.delete("recstore.writable")  # type: ignore[attr-defined]
        except BaseException:
            self._disconnect_pools()  # type: ignore[attr-defined]
            raise

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except ResponseError as error:  # Celery's own line does not say why it connects again
            log.error("the broker gives no messages: %s", brief(error))
            raise
        except BROKER_ERRORS:
            raise
        except Exception as error:  # an entry that is not JSON; Redis no longer has it
            removed("the broker", error)
            return True

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[Any], Any], consumer_tag: str, **more: Any
    ) -> Any:
        def screened(message: Any) -> None:
            try:
                if not no_ack:  # else it is remote control's
                    check_task(message)
                callback(message)
            except BROKER_ERRORS:
                raise
            except Exception as error:
                removed(f"queue {queue}", error)
                if not (no_ack or message.acknowledged):
                    message.reject()

        return super().basic_consume(queue, no_ack, screened, consumer_tag, **more)  # type: ignore[misc]


class _Transport:
    """Screens what it takes from the broker before it makes a message of it.

    Any error of Redis's, READONLY after a failover for instance, is one of the connection: Celery connects again, with pauses.
    """

    connection_errors = (*redis.Transport.connection_errors, RedisError)

    def _deliver(self, message: Any, queue: str) -> None:
        try:
            check_envelope(message)
            super()._deliver(message, queue)  # type: ignore[misc]
        except BROKER_ERRORS:
            raise
        except Exception as error:
            removed(f"queue {queue}", error)


class Channel(_Channel, redis.Channel):
    """A channel to Redis."""


class Transport(_Transport, redis.Transport):
    """A connection to Redis."""

    Channel = Channel


class SentinelChannel(_Channel, redis.SentinelChannel):
    """A channel to a Redis that Sentinel names."""


class SentinelTransport(_Transport, redis.SentinelTransport):
    """A connection to a Redis that Sentinel names."""

    Channel = SentinelChannel


def check_envelope(message: Any) -> None:
    """Check the parts that the transport itself reads. Raises Malformed."""
    require(isinstance(message, dict), "it is no message of Celery's")
    properties = message.get("properties")
    require(isinstance(properties, dict), "it has no properties")
    require(isinstance(properties.get("delivery_tag"), str), "it has no delivery tag")
    delivery = properties.get("delivery_info")
    require(isinstance(delivery, dict), "it does not say where it was sent")
    names = [delivery.get("exchange"), delivery.get("routing_key")]
    require(all(isinstance(name, str) for name in names), "it does not say where it was sent")
    require(all(map(_flat, delivery.values())), "where it was sent is nested")
    properties = {name: value for name, value in properties.items() if name != "delivery_info"}
    require(all(map(_flat, properties.values())), "its properties are nested")
    require(isinstance(message.get("headers"), dict | None), "its headers are no object")
    for part in ("content-type", "content-encoding"):
        require(isinstance(message.get(part), str | None), f"its {part} is no text")
    body = message.get("body")
    require(isinstance(body, str | None), "its body is no text")
    require(len(body or "") <= LARGEST, f"its body has more than {LARGEST} characters")


def check_task(message: Any) -> None:
    """Check that a message calls one of recstore's tasks, with arguments that it takes. Raises Malformed."""
    from .app import app  # which imports this module

    if message.errors:
        raise Malformed("its body cannot be decoded")
    try:
        body = message.decode()
    except Exception as error:
        raise Malformed(f"its body cannot be decoded ({error})") from error
    if "task" in message.headers:
        require(isinstance(body, list | tuple) and len(body) == 3, "its body is not a list of three")
        about, (arguments, named, embedded) = message.headers, body
    else:  # version 1 of the protocol
        require(isinstance(body, dict), "its body is no object")
        about, arguments, named = body, body.get("args", []), body.get("kwargs", {})
        embedded = {name: body.get(name) for name in ("callbacks", "errbacks", "chain", "chord")}
    task = about.get("task")
    known = isinstance(task, str) and task.startswith("recstore.") and task in app.tasks
    require(known, f"recstore has no task {brief(task)}")
    number = about.get("id")
    require(isinstance(number, str) and 0 < len(number) <= LONGEST_ID and _storable(number), "its id is no short text")
    require(isinstance(arguments, list | tuple) and isinstance(named, dict), "its arguments are no list and object")
    require(all(map(_flat, [*arguments, *named.values()])), "its arguments are nested")
    require(all(map(_storable, [*arguments, *named.values()])), "its arguments cannot be stored in a database")
    try:
        app.tasks[task].__header__(*arguments, **named)
    except TypeError as error:
        raise Malformed(f"{task} does not take its arguments") from error
    require(isinstance(embedded, dict | None) and not any((embedded or {}).values()), "other tasks are to follow it")
    require(_limits(about.get("timelimit")), "its time limits are not two numbers of seconds")
    require(type(about.get("retries") or 0) is int, "its number of retries is no number")
    require(_times(about.get("eta"), about.get("expires")), "its times are no dates")
    require(not (about.get("stamped_headers") or about.get("stamps")), "it has stamps")
    require(
        all(_flat(value) for name, value in about.items() if name not in ("args", "kwargs")), "its headers are nested"
    )


def require(right: bool, why: str) -> None:
    if not right:
        raise Malformed(why)


def _storable(value: object) -> bool:
    """Return whether PostgreSQL takes this text; any other value is the task's to judge."""
    return not isinstance(value, str) or not re.search("[\0\ud800-\udfff]", value)


def _flat(value: object) -> bool:
    """Return whether a value is empty, single, or a list of single ones. What fails in Celery once it has a place in the pool,
    as something deeply nested does, keeps the place for ever."""
    single = str | int | float | None
    return (
        not value
        or isinstance(value, single)
        or (isinstance(value, list) and all(isinstance(one, single) for one in value))
    )


def _limits(limits: Any) -> bool:
    def seconds(limit: Any) -> bool:
        return limit is None or (type(limit) in (int, float) and 0 <= limit <= LONGEST_LIMIT)

    return not limits or (isinstance(limits, list | tuple) and len(limits) == 2 and all(map(seconds, limits)))


def _times(*times: Any) -> bool:
    try:
        return all(time is None or (isinstance(time, str) and maybe_iso8601(time) is not None) for time in times)
    except (ValueError, OverflowError):
        return False
