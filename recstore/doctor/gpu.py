"""The GPU of this machine: whether a training here would use it, and why not."""

from collections.abc import Iterator

from recstore.config import Settings
from recstore.doctor.checks import check
from recstore.doctor.findings import Finding, error, note, ok, warning
from recstore.doctor.subject import Subject
from recstore.errors import DeviceUnavailable

ADVICE = "Say which device you want: RECSTORE_DEVICE=cpu never looks for a GPU, gpu demands it."


@check("gpu", "gpu", "process")
def gpu(settings: Settings) -> Iterator[Finding]:
    """Of the machine that this runs on: run it where the worker of the queue `train` runs."""
    if settings.device == "cpu":
        yield ok("RECSTORE_DEVICE=cpu: no GPU is looked for")
        return
    from recstore.model.trainers import als  # `implicit`, which takes a second to import

    problem = als.gpu_problem()
    if problem is None:
        yield ok("trainings on this machine use the GPU")
    elif settings.device == "gpu":
        yield error(
            f"RECSTORE_DEVICE=gpu, and this machine's can not be used: {problem}",
            f"Trainings here fail ({DeviceUnavailable.__name__}). Mend that where the worker of the queue `train` runs, or let"
            " the CPU take over:",
            "RECSTORE_DEVICE=auto",
        )
    else:
        yield note(
            f"trainings on this machine use the CPU: {problem}",
            "That is right where there is no GPU, or where another machine trains. " + ADVICE,
            *(["pip install 'recstore[gpu]'"] if "pip install" in problem else []),
        )


@check("gpu-room", "gpu", "recommender", own=True)
def gpu_room(subject: Subject, name: str) -> Iterator[Finding]:
    if subject.settings.device == "cpu":
        return
    from recstore.model.trainers import als

    live = subject.row("doctor_live", recommender_id=subject.registered[name].id)
    if live["generation"] is None or als.gpu_problem() is not None:
        return
    problem = als.gpu_problem(live["factors"] or 1, live["users"] or 1, live["items"] or 1, live["pairs"] or 0)
    if problem is None:
        yield ok("a training like the live one fits the GPU's memory")
    else:
        yield (error if subject.settings.device == "gpu" else warning)(
            f"a training like the live one does not fit the GPU: {problem}",
            "With RECSTORE_DEVICE=auto the CPU trains instead, and the run says so; with gpu the run fails. Fewer factors need"
            " less memory.",
        )
