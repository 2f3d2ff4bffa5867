"""What `Recstore`'s methods return: small frozen rows, with the names that the command's --json has (a Python keyword has an
underscore behind it). `dataclasses.asdict` makes a dict of one.

Times are datetimes with a time zone, lengths of time timedeltas, JSON columns dicts and lists.
"""

from recstore.api.rows.results import (
    Dropped,
    EmbeddedServer,
    Initialized,
    Loaded,
    Popular,
    Pruned,
    Recommended,
    Revision,
    RolledBack,
    Similar,
    Statements,
    Tuned,
    Upgraded,
)
from recstore.api.rows.views import (
    Altered,
    Created,
    Described,
    Dispatch,
    Generation,
    Listed,
    Request,
    Row,
    Run,
    RunStory,
    Status,
    Study,
    Summary,
    Trial,
    Watched,
)

__all__ = [
    "Altered",
    "Created",
    "Described",
    "Dispatch",
    "Dropped",
    "EmbeddedServer",
    "Generation",
    "Initialized",
    "Listed",
    "Loaded",
    "Popular",
    "Pruned",
    "Recommended",
    "Request",
    "Revision",
    "RolledBack",
    "Row",
    "Run",
    "RunStory",
    "Similar",
    "Statements",
    "Status",
    "Study",
    "Summary",
    "Trial",
    "Tuned",
    "Upgraded",
    "Watched",
]
