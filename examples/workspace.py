"""The base of the tutorials: options, a database of their own, timed steps, and a record of what came out."""

import argparse
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from PIL import Image
from psycopg.rows import dict_row

from recstore import Recstore

HERE = Path(__file__).parent
MARK = "of a tutorial of recstore, which replaces it"
START, END = "<!-- written by --record -->\n", "<!-- end -->\n"


class Workspace:
    """A tutorial at work. It is also the reporter and the watch of long jobs, and prints what they do."""

    def __init__(self, name: str, store: Recstore, output: Path, data: Path | None, small: bool) -> None:
        self.name, self.store, self.output, self.data, self.small = name, store, output, data, small
        self.rows: list[tuple[str, str, str]] = []
        self.cpu, self.since = {"": 0.0}, 0.0
        self.summary: tuple[str, str] = ("", "")
        self.connection = psycopg.connect(store.url, autocommit=True, row_factory=dict_row)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Print what begins, and how long it took."""
        print(f"\n== {title}", flush=True)
        began = time.perf_counter()
        yield
        print(f"   {time.perf_counter() - began:.1f} s", flush=True)

    def sql(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        """Execute a statement and return its rows."""
        cursor = self.connection.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else []

    def show(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        """Print a query and its rows, and return them."""
        found = self.sql(statement, **parameters)
        printed = re.sub(r"%\((\w+)\)s", lambda name: repr(str(parameters[name[1]])), statement.replace("%%", "%"))
        print("\n".join(f"   {line.strip()}" for line in printed.strip().splitlines()))
        for row in found:
            print("     " + "  ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()))
        return found

    def record(self, what: str, here: str, original: str = "") -> None:
        """Note a figure for the README, next to what the original reported."""
        self.rows.append((what, original, here))
        print(f"   {what}: {here}" + (f" (the original: {original})" if original else ""), flush=True)

    def fresh(self, schema: str, *recommenders: str) -> None:
        """Create the tutorial's own schema, without what an earlier run left in it; end where it is not the tutorial's."""
        found = self.sql("SELECT obj_description(to_regnamespace(%(it)s), 'pg_namespace') AS mark WHERE to_regnamespace(%(it)s)"
                         " IS NOT NULL", it=schema)  # fmt: skip
        if found and found[0]["mark"] != MARK:
            raise SystemExit(f"There is a schema {schema} already; name another database.")
        for name in {row.recommender for row in self.store.list()} & set(recommenders) if found else ():
            self.store.drop(name)
        self.sql(
            f"DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}; COMMENT ON SCHEMA {schema} IS '{MARK}'"
        )

    def stage(self, name: str, seconds: float, details: dict[str, Any]) -> None:
        """Receive a finished stage of a job, and note its CPU time."""
        self.cpu[name], self.since = time.process_time() - self.since, time.process_time()
        print(f"   {name:<12} {seconds:7.2f} s   {details.get('summary', details.get('told', ''))}", flush=True)

    def progress(self, name: str, done: int, total: int, note: str = "") -> None:
        """Receive the progress of a stage; nothing is printed of it."""

    def warn(self, sentence: str) -> None:
        """Receive a warning of a job."""
        print(f"   Warning: {sentence}", flush=True)

    def begins(self, *_: Any) -> None:
        """Receive a trial of a search that begins."""

    def point(self, *_: Any) -> None:
        """Receive a point of a trial's learning curve."""

    def ends(self, _trial: Any, plan: Any, trials: Sequence[Any]) -> None:
        """Receive a trial that ended."""
        if len(trials) % 10 == 0 or len(trials) == plan.most_trials:
            best = max(one.value or 0.0 for one in trials)
            print(f"   trial {len(trials)} of {plan.most_trials}: the best so far {best:.4f}", flush=True)


def main(tutorial: Callable[[Workspace], None], script: str, arguments: Sequence[str] | None = None) -> Workspace:
    """Run a tutorial by its command line."""
    folder = Path(script).parent
    parser = argparse.ArgumentParser(prog=f"python -m examples.{folder.name}")
    parser.add_argument("--size", choices=("small", "full"), default="full", help="seconds, or minutes")
    parser.add_argument("--data", type=Path, help="the original's file; otherwise data of that shape are generated")
    parser.add_argument("--database", help="URL of a database; otherwise a PostgreSQL server in the output folder")
    parser.add_argument("--output", type=Path, default=folder / "output", help="folder of what is written")
    parser.add_argument("--record", action="store_true", help="write figures and pictures into the README, too")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    home = options.output / "server"
    url = options.database or Recstore(home=home).start().url
    store = Recstore(url, home=home)
    began, computed = time.perf_counter(), time.process_time()
    try:
        store.db.upgrade()
        work = Workspace(folder.name, store, options.output, options.data, options.size == "small")
        with work.connection:
            tutorial(work)
        minutes = (time.perf_counter() - began) / 60
        took = f"{duration(minutes)}, {duration((time.process_time() - computed) / 60)} of CPU time"
        figures = {"rows": work.rows, "summary": work.summary, "took": took, "lines": own_lines(Path(script))}
        (work.output / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
        print(f"\n{work.name}: {took}, {figures['lines']} lines; see {work.output}")
        if options.record:
            publish(options.output, folder)
    finally:
        if not options.database:
            store.stop()
            print(f"Look at it: RECSTORE_HOME={home} {HERE.parent / '.venv/bin/recstore'} psql")
    return work


def duration(minutes: float) -> str:
    """Return a length of time for people."""
    return f"{minutes:.0f} min" if minutes >= 2 else f"{60 * minutes:.0f} s"


def own_lines(script: Path) -> int:
    """Return the number of a script's lines without blank ones, comments and docstrings."""
    text = re.sub(r'^\s*"""[\s\S]*?"""\n', "", script.read_text(), flags=re.MULTILINE)
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in text.splitlines())


def figures_table(figures: dict[str, Any]) -> str:
    """Return the table of a tutorial's README."""
    rows = [*figures["rows"], ("all of it took", "", figures["took"]), ("lines of code", "", str(figures["lines"]))]
    return "".join(f"| {' | '.join(row)} |\n" for row in [("", "original", "here"), ("---",) * 3, *rows])


def overview() -> str:
    """Return the table of examples/README.md."""
    rows = [("tutorial", "the original reported", "what came out here", "took", "lines"), ("---",) * 5]
    for file in sorted(HERE.glob("*/figures.json")):
        figures, name = json.loads(file.read_text()), file.parent.name
        title = (file.parent / "README.md").read_text().partition("\n")[0].removeprefix("# ")
        rows.append((f"[{title}]({name}/README.md)", *figures["summary"], figures["took"], str(figures["lines"])))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def publish(output: Path, folder: Path) -> None:
    """Write the figures and pictures of a full run into the folder of the tutorial, and into both READMEs."""
    shutil.copy(output / "figures.json", folder)
    for picture in re.findall(r"\]\(([\w-]+\.(?:png|svg))\)", (folder / "README.md").read_text()):
        if picture.endswith(".svg"):
            shutil.copy(output / picture, folder)
        else:
            small = Image.open(output / picture).convert("RGB")
            small.thumbnail((1000, 1000))
            colours = small.quantize(64, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            colours.save(folder / picture, optimize=True)
    figures = json.loads((folder / "figures.json").read_text())
    for page, table in ((folder / "README.md", figures_table(figures)), (HERE / "README.md", overview())):
        before, _, rest = page.read_text().partition(START)
        page.write_text(before + START + table + END + rest.partition(END)[2])
