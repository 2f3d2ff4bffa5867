"""Write the reports of docs/retail.md into docs/retail/: `make docs-retail`, about ten minutes.

Runs the demo, its evaluation and its search in an embedded server of their own, which is removed afterwards.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

FOLDER = Path(__file__).with_suffix("")
COMMANDS = (
    "demo",
    "evaluate retail --curve 1 --sql --report {folder}/evaluation.html --pictures {folder}",
    "tune retail --new --time {seconds} --max-factors 512 --report {folder}/tuning.html --pictures {folder}",
)


def write(folder: Path, seconds: int = 300) -> None:
    """Write both reports and their pictures into `folder`; the search takes `seconds`."""
    folder.mkdir(exist_ok=True)
    with TemporaryDirectory() as home:

        def recstore(command: str) -> None:
            arguments = [word.format(folder=folder, seconds=seconds) for word in command.split()]
            others = {name: value for name, value in os.environ.items() if not name.startswith("RECSTORE_")}
            subprocess.run(
                [sys.executable, "-m", "recstore", *arguments], env=others | {"RECSTORE_HOME": home}, check=True
            )

        try:
            for command in COMMANDS:
                recstore(command)
        finally:
            recstore("stop")


if __name__ == "__main__":
    write(FOLDER, *map(int, sys.argv[1:]))
