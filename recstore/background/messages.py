"""The broker without Celery: whether it answers, and how many messages wait. The only module that imports redis-py."""

import re
from collections.abc import Sequence

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.retry import Retry

from recstore.errors import BrokerUnreachable

PATIENCE = 2.0
"""Seconds that connecting, and each answer, may take."""

PROBE = "recstore.probe"
"""Key that a test of the broker sets for a second: a replica, or a full server, refuses."""


def queue_lengths(url: str, queues: Sequence[str] = ()) -> dict[str, int]:
    """Return the number of waiting messages in each queue; without queues only test the broker. Raises BrokerUnreachable."""
    try:
        with Redis.from_url(
            _redis_url(url),
            socket_timeout=PATIENCE,
            socket_connect_timeout=PATIENCE,
            retry=Retry(NoBackoff(), 0),  # the callers retry
        ) as client:
            client.set(PROBE, "", ex=1)
            return {queue: int(client.llen(queue)) for queue in queues}
    except (RedisError, OSError, ValueError) as error:
        raise BrokerUnreachable(reason=_reason(error)) from error


def _reason(error: Exception) -> str:
    """Return the reason without the error number that redis-py puts before it."""
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, AuthenticationError):
        return f"it requires a password, or another one ({text}): write redis://:PASSWORD@host:6379/0"
    if tls := re.search(r"\[SSL: \w+\] (.+?)(?: \(_ssl|$)", text):
        return f"TLS failed ({tls[1]}): rediss:// is for a server that speaks TLS, redis:// for one that does not"
    if found := re.fullmatch(r"Error -?\d+ connecting to (.*?)\. (.+)", text):
        return f"{found[2]} ({found[1] or 'no address'})"
    if text.startswith("Protocol Error"):
        return "the server at that address is not Redis"
    return text


def _redis_url(url: str) -> str:
    """Return Celery's URL as redis-py writes it: a Unix socket, its database and certificate checks are named otherwise."""
    url = re.sub(r"(?<=[?&]ssl_cert_reqs=)CERT_\w+", lambda found: found[0][5:].lower(), url)
    scheme, _, rest = url.partition("://")
    return "unix://" + rest.replace("virtual_host=", "db=") if scheme == "redis+socket" else url
