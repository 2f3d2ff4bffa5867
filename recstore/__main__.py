"""The entry point of `recstore` and of `python -m recstore`.

It imports little, so that an interrupt during the other imports, a second or two, is a sentence, too.
"""

import gc
import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run one command line; every error is a sentence, and the exit code its kind (docs/cli.md)."""
    wanted = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # a shell's background job ignores Ctrl-C
    for number in (signal.SIGINT,) * wanted + (signal.SIGTERM,):
        signal.signal(number, _leave)
    gc.disable()  # a fifth of the imports' time, and hardly anything to find
    from recstore import cli

    cli.command_line(cli.command_of(sys.argv[1:]))
    gc.freeze()
    gc.enable()
    if wanted:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)  # a stop by systemd or Kubernetes is a Ctrl-C
    try:
        code = cli.run(sys.argv[1:])
    except Exception as error:
        code = cli.report_defect(error)
    if wanted:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # everything is printed
    sys.exit(code)


def _leave(_signal: int, _frame: FrameType | None) -> None:
    """Exit at once: an exception could be lost within an import, or leave a library half imported."""
    os.write(sys.stderr.fileno(), b"Error: Interrupted before anything was done.\n")
    os._exit(130)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
