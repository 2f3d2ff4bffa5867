"""Loaded into a worker: lets a test stop a run at a place, as long as a file exists there.

The place is the end of a stage ("train"), within one ("in train"), or within a trial of a study ("in trial"). Celery's worker
looks twice a second, not every 100 seconds, for messages past their visibility timeout. RECSTORE_TEST_SILENCE and the like
shorten `monitoring.SILENCE` and other constants.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

from recstore.worker import monitoring, process
from recstore.worker.reporters import LogReporter, LogWatch

from recstore.background import due

FOLDER = Path(os.environ["RECSTORE_TEST_HOLD"])

for name, module in {"SILENCE": monitoring, "MARGIN": due, "PATIENCE": process, "NOTICED": process}.items():
    if seconds := os.environ.get(f"RECSTORE_TEST_{name}"):
        setattr(module, name, float(seconds))

if "celery" in sys.modules:
    from recstore.worker import app
    from recstore.worker.celery import pulse

    app.conf.broker_transport_options |= {"unacked_restore_interval": 0.5, "unacked_restore_throttle": 1}
    if "RECSTORE_TEST_SILENCE" in os.environ:
        pulse.BEAT = 0.1


def _hold(place: str) -> None:
    file = FOLDER / f"hold {place}"
    if file.exists():
        (FOLDER / f"held {place}").write_text(str(os.getpid()))
        while file.exists():
            time.sleep(0.01)


_stage = LogReporter.stage


def stage(self: LogReporter, name: str, seconds: float, details: dict[str, Any]) -> None:
    _stage(self, name, seconds, details)
    _hold(name)


def progress(_self: LogReporter, name: str, *_: Any) -> None:
    _hold(f"in {name}")


def point(_self: LogWatch, *_: Any) -> None:
    _hold("in trial")


LogWatch.point = point  # type: ignore[method-assign]
LogReporter.stage = stage  # type: ignore[method-assign]
LogReporter.progress = progress  # type: ignore[method-assign]
