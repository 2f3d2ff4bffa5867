"""Checks of this machine's GPU: whether a training here would use it, and why not."""

from collections.abc import Iterator
from contextlib import suppress
from types import ModuleType

from recstore.config import Settings
from recstore.doctor.findings import Finding, check, error, note, ok, warning
from recstore.doctor.subject import Subject
from recstore.errors import DeviceUnavailable, PartNotInstalled, installed_parts


def _als() -> ModuleType | None:
    """Return the trainer, which takes a second to import; None where it is not installed."""
    with suppress(PartNotInstalled), installed_parts():
        from recstore.model.trainers import als

        return als
    return None


@check("process", well="RECSTORE_DEVICE=cpu: no GPU is used")
def gpu(settings: Settings) -> Iterator[Finding]:
    """Check the machine that this runs on, which should be that of the worker of the queue `train`."""
    if settings.device == "cpu":
        return
    als = _als()
    if als is None:
        yield ok("nothing trains on this machine: recstore[worker] is not installed")
        return
    problem = als.gpu_problem()
    if problem is None:
        yield ok("trainings on this machine use the GPU")
    elif settings.device == "gpu":
        yield error(
            f"RECSTORE_DEVICE=gpu, and the GPU of this machine cannot be used: {problem}",
            f"Trainings here fail ({DeviceUnavailable.__name__}). Fix that where the worker of the queue `train` runs, or let"
            " the CPU take over:",
            "RECSTORE_DEVICE=auto",
        )
    else:
        yield note(
            f"trainings on this machine use the CPU: {problem}",
            "That is right where there is no GPU, or where another machine trains. State which device you want:"
            " RECSTORE_DEVICE=cpu never looks for a GPU, gpu requires it.",
            *(["pip install 'recstore[gpu]'"] if "pip install" in problem else []),
        )


@check("recommender")
def gpu_room(subject: Subject) -> Iterator[Finding]:
    als = None if subject.settings.device == "cpu" else _als()
    if als is None:
        return
    live = subject.live
    if live["generation"] is None or als.gpu_problem() is not None:
        return
    problem = als.gpu_problem(live["factors"] or 1, live["users"] or 1, live["items"] or 1, live["pairs"] or 0)
    if problem is None:
        yield ok("a training like the live one fits in the GPU's memory")
    else:
        yield (error if subject.settings.device == "gpu" else warning)(
            f"a training like the live one does not fit in the GPU's memory: {problem}",
            "With RECSTORE_DEVICE=auto the CPU trains instead, and the run reports it; with gpu the run fails. Fewer factors"
            " need less memory.",
        )
