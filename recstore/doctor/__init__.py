"""Look for problems before anything fails: `recstore doctor`.

A check is one function; the modules `check_GROUP` hold the checks of a group. Nothing is ever changed: every check runs in a
READ ONLY transaction with short timeouts, except the one that tries CREATE EXTENSION; all are rolled back.
"""

from recstore.doctor.examination import examine, problems, problems_of
from recstore.doctor.findings import CHECKS, Finding

__all__ = ["CHECKS", "Finding", "examine", "problems", "problems_of"]
