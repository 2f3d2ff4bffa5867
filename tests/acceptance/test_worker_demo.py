"""The demo of background work, in short: it prints each publication, no read fails, and no process of it is left running."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


def processes_about(*words: str) -> Iterator[str]:
    """Command lines of the processes that name one of these in command, environment or working directory."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text(errors="replace").replace("\0", " ")
            about = f"{command} {(process / 'environ').read_text(errors='replace')} {(process / 'cwd').readlink()}"
        except OSError:
            continue
        if any(word in about for word in words):
            yield command


def test_the_worker_demo_publishes_skips_reads_and_ends(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECSTORE_")}
    command = [sys.executable, "-m", "recstore", "worker-demo", "--seconds", "3"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    sums = re.search(
        r"runs +(\d+) publications, (\d+) skipped\n +reads +([\d,]+): 0 errors, 0 short lists", done.stdout
    )
    assert sums, done.stdout
    published, skipped, reads = (int(number.replace(",", "")) for number in sums.groups())
    assert published == len(re.findall(r"^generation \d+ is live", done.stdout, re.MULTILINE)) >= 2
    assert skipped == done.stdout.count("Skipped: the source has nothing new") >= 1
    assert reads > 100
    assert "393,636 events up to 9 December 2010" in done.stdout  # the last training saw them all
    assert all(len(line) <= 100 for line in done.stdout.splitlines() if "RECSTORE_HOME" not in line), done.stdout
    said = (tmp_path / ".recstore/worker-demo/processes.log").read_text()
    sockets = re.search(r"(/\S+)/redis\.sock", said)
    assert sockets, said
    assert not Path(sockets[1]).exists()
    assert list(processes_about(str(tmp_path), sockets[1])) == []
