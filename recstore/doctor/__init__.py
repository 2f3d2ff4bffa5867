"""What stands in recstore's way, looked for before anything fails: `recstore doctor`.

A check is one function (see `checks`); the modules beside it are the groups of checks. Nothing is ever changed: every check
runs in a READ ONLY transaction with short timeouts, but for the one that tries CREATE EXTENSION and rolls it back.
"""

from recstore.doctor.checks import CHECKS
from recstore.doctor.examination import examine
from recstore.doctor.findings import Finding, worst

__all__ = ["CHECKS", "Finding", "examine", "worst"]
