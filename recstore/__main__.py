"""The entry point of `recstore` and of `python -m recstore`: as light as can be, so that an interrupt while the rest is
being imported is a sentence, too."""

import signal
import sys
from types import FrameType


def main() -> None:
    """Runs one command line; every error is a sentence, and the exit code tells the kind (README, "Day to day")."""
    signal.signal(signal.SIGTERM, _interrupt)  # a stop by systemd or Kubernetes is a Ctrl-C
    try:
        from recstore.cli import run
    except KeyboardInterrupt:
        sys.stderr.write("Error: Interrupted before anything was done.\n")
        sys.exit(130)
    sys.exit(run(sys.argv[1:]))


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
