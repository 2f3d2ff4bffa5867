"""Helpers that outlive this process for a moment, to put away what it started.

A helper is a small shell script that waits for the end of its standard input. The other end of that pipe is held by this
process alone, so it closes however this process ends, also by `kill -9`. The helper is in a session of its own, so no
Ctrl-C reaches it.
"""

import os
import subprocess
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from recstore.embedded.programs import ENVIRONMENT


@contextmanager
def supervised(
    script: str,
    *arguments: str,
    folder: Path | None = Path("/"),
    environment: Mapping[str, str] = ENVIRONMENT,
    inherited: tuple[int, ...] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """The helper that runs `script`, told to finish, and waited for, at the end of the block."""
    helper = subprocess.Popen(
        ["/bin/sh", "-c", script, "recstore", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        cwd=folder,
        env=environment,
        pass_fds=inherited,
        start_new_session=True,
    )
    _helpers.add(helper)
    assert helper.stdin
    assert helper.stdout
    try:
        with helper.stdout:
            yield helper
    finally:
        helper.stdin.close()
        helper.wait()


def ask(helper: subprocess.Popen[bytes], line: str) -> str:
    """The helper's answer to a line; empty when it has ended."""
    assert helper.stdin
    assert helper.stdout
    helper.stdin.write(f"{line}\n".encode())
    return helper.stdout.readline().decode().strip()


_helpers: "weakref.WeakSet[subprocess.Popen[bytes]]" = weakref.WeakSet()


def _let_go() -> None:
    for helper in _helpers:
        if helper.stdin:
            helper.stdin.close()


os.register_at_fork(after_in_child=_let_go)  # else a forked child that lives on would keep its parent's helpers waiting
