"""The entry point of `recstore` and of `python -m recstore`: as light as can be, so that an interrupt while the rest is
being imported, a second or two, is a sentence, too."""

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Runs one command line; every error is a sentence, and the exit code tells the kind (docs/cli.md)."""
    wanted = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # a shell's background job ignores Ctrl-C
    for number in (signal.SIGINT,) * wanted + (signal.SIGTERM,):
        signal.signal(number, _leave)
    from recstore import cli

    cli.command_line(cli.command_of(sys.argv[1:]))
    if wanted:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)  # a stop by systemd or Kubernetes is a Ctrl-C
    try:
        code = cli.run(sys.argv[1:])
    except Exception as error:
        code = cli.tell_defect(error)
    if wanted:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said and done
    sys.exit(code)


def _leave(_signal: int, _frame: FrameType | None) -> None:
    """At once: an exception could be lost within an import, or half import a library that then does not end well."""
    os.write(sys.stderr.fileno(), b"Error: Interrupted before anything was done.\n")
    os._exit(130)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
