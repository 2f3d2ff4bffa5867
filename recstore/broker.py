"""What is asked of the broker without Celery: whether it answers, and how many messages wait. Alone speaks to Redis by itself."""

import re
from collections.abc import Sequence

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from recstore.errors import BrokerUnreachable

PATIENCE = 2.0
"""Seconds that connecting, and each answer, may take."""


def queue_lengths(url: str, queues: Sequence[str] = ()) -> dict[str, int]:
    """Messages that wait in each queue; with no queues only sees that the broker answers. Raises BrokerUnreachable."""
    try:
        with Redis.from_url(
            _redis_url(url),
            socket_timeout=PATIENCE,
            socket_connect_timeout=PATIENCE,
            retry=Retry(NoBackoff(), 0),  # whoever asks, asks again
        ) as client:
            client.ping()
            return {queue: int(client.llen(queue)) for queue in queues}
    except (RedisError, OSError, ValueError) as error:
        raise BrokerUnreachable(reason=" ".join(str(error).split()).rstrip(".")) from error


def _redis_url(url: str) -> str:
    """Celery's URL as redis-py writes it, which has other words for a Unix socket, its database and a certificate's checks."""
    url = re.sub(r"(?<=[?&]ssl_cert_reqs=)CERT_\w+", lambda found: found[0][5:].lower(), url)
    scheme, _, rest = url.partition("://")
    return "unix://" + rest.replace("virtual_host=", "db=") if scheme == "redis+socket" else url
