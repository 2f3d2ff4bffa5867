"""Write docs/performance.md and its plots from the results of the benchmarks, and from nothing else.

python benchmarks/performance.py
"""

import io
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import measured
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from recstore.experiments.report import canvas

DOCS = Path(__file__).parents[1] / "docs"

PARTS = {
    "job": (
        "The whole job, a million interactions",
        "Each step runs in a process of its own, on the demo's data, expanded. (a), `tutorial`, is the pipeline found in"
        " tutorials: `pandas.read_sql`, category codes, `implicit`, `executemany` upserts into tables with an index. (b),"
        " `careful`, reads by COPY and writes by COPY, with one index. Both train with recstore's settings, and neither checks,"
        " compares or calibrates anything. `implicit alone` trains on the ready matrix; `COPY in` loads the bytes of the"
        " generation by psql; `CREATE INDEX` builds its indexes with the memory and the workers that recstore requests.",
    ),
    "job_full": ("The whole job, more interactions", "As above."),
    "commands": ("Commands that only look", "Seconds from the start to the end of a command, next to Python's own."),
    "growth": (
        "Growth",
        "One job for each size. `estimate` is what `recstore doctor` expects of a training of that size; `peak_mb` is the highest"
        " memory of the worker's process, `server_mb` that of PostgreSQL with its shared memory. Where `iterations` are fewer"
        " than 15, the time of the training was multiplied accordingly. The constants of the estimate were fitted to these"
        " runs, so its difference is that of a fit, not of a prediction.",
    ),
    "expand": (
        "The data",
        "Real pairs of the demo become several shops whose customers and items overlap (`benchmarks/expand.py`)."
        " The popularity curve, the activity of users and the co-views stay; lists of each model are"
        " compared with a fifth of each user's pairs.",
    ),
    "serving": (
        "Serving",
        "pgbench with prepared statements, next to the same query written by hand on the views, with the vector looked up by a"
        " sub-select and at the calibrated `hnsw.ef_search`. Items are planted in clusters, users solved exactly against them;"
        " recall is ANN recall@10. Light users have about 15 items, heavy ones several hundred. `implicit in memory` is its"
        " `recommend()` in a process of Python, without a database. Readers ask at a steady rate during a publication."
        " Where the time of a function goes, and what was tried: [decision 2](decisions/0002-dynamic-sql-in-functions.md).",
    ),
    "serving_large": ("Serving, more items", "As above."),
    "tuning_dense": (
        "Budget of a search, dense interactions",
        "The default budget of `recstore tune` next to one ten times as long, on generated interactions: the test part is"
        " measured once with each winner.",
    ),
    "tuning_sparse": ("Budget of a search, sparse interactions", "As above."),
    "quality_defaults": (
        "Quality by default settings",
        "Lists of public splits, all items ranked for each user; next to bm25, the default where counts vary.",
    ),
}
"""Heading and introduction of each part; others follow by their names."""

WHY = {
    "command start": "Nearly all of it is imports, by package below; what only some commands need is imported when they run.",
    "read": "`psql` does not look at what it copies. recstore's read decodes the rows, maps the ids, sorts and merges the pairs"
    " and takes a digest; [decision 9](decisions/0009-reading-over-arrow.md) has what was tried. With few rows the connection"
    " and the first batches count as well.",
    "train": "The same library trains the same matrix; recstore adds the transposed matrix for fold-ins, the regularization of"
    " the data and a check of the factors. On a busy machine compare the processor time of the remark.",
    "exact users": "Each user's equations are solved exactly where an iteration takes three steps of conjugate gradients, and in"
    " double precision; [decision 10](decisions/0010-exact-users.md) has what was tried.",
    "gate, hold out, weigh, vectors": "The gate ranks all items for a sample of held-out users, whatever the number of pairs, so"
    " its share falls as the data grows.",
    "load": "The rows are encoded by NumPy, and the generation is described in the same stage.",
    "index": "pgvector builds both graphs; a graph that does not reach the wanted ANN recall is built again, denser.",
    "calibrate": "It computes the exact lists of a sample of queries and asks these at each step of the ladder, whatever the"
    " size of the data; [decision 7](decisions/0007-calibration.md) has what was tried.",
    "flip": "One row is updated; the rest is the wait for the commit.",
    "whole job": "What (a) does not do is most of the rest: exact users, the gate, the calibration, which take a share that falls"
    " as the data grows. The memory of both begins with that of their libraries.",
    "readers": "Queries and the stages of the publication share the cores; the remark has the p99 in each stage. No reader waits"
    " for a lock: the flip updates one row. A server with more cores than the publication uses keeps them apart.",
    "SQL functions": "A call reads the pointer, then parses and plans statements on the live generation's own tables: 0.1 to 0.3"
    " ms more than the query by hand, which a short search does not hide."
    " [Decision 2](decisions/0002-dynamic-sql-in-functions.md) has the parts, and what was tried.",
    "50 users in one query": "Each of the 50 users is a call with the same share of planning, and leaves out seen items, which"
    " the query by hand does not.",
    "gowalla": "The test part differs from the training pairs in a way that no validation part shows:"
    " [decision 40](decisions/0040-validation.md).",
}
"""Explanation of each stage whose level does not hold; what a benchmark found follows it."""

PICTURES: dict[str, bytes] = {}
"""The plots that `page` has drawn, by name."""

STAGES = ("read", "train", "solve users", "load", "index", "calibrate")
"""Stages of the plots; the others are summed up."""


def page(parts: dict[str, dict[str, Any]], history: list[dict[str, Any]]) -> str:
    levels = [(name, level) for name, part in parts.items() for level in part["levels"]]
    holding = sum(level["holds"] for _, level in levels)
    lines = [
        "# Performance",
        "",
        "What the benchmarks measured; `make bench` measures in minutes, `make bench-full` in hours, and both write this page"
        " from `benchmarks/results/`. Times vary with the machine, so levels are ratios of medians that were measured in turns."
        " The words are those of the [glossary](glossary.md).",
        "",
        "## Levels",
        "",
        f"{holding} of {len(levels)} hold.",
        "",
        *table(
            [
                {
                    "part": heading(name),
                    "stage": level["stage"],
                    "level": level["level"],
                    "measured": f"{number(level['measured'])} {level['unit']}",
                    "holds": "yes" if level["holds"] else "**no**",
                    "remark": level["note"],
                }
                for name, level in levels
            ]
        ),
    ]
    lines += explained(parts)
    for name, part in parts.items():
        lines += section(name, part)
    return "\n".join([*lines, "", "## History", "", *past(history)]) + "\n"


def explained(parts: dict[str, dict[str, Any]]) -> list[str]:
    """Return an explanation and a profile for each stage of which a level does not hold."""
    lines = ["", "## What does not hold"]
    for part in parts.values():
        for stage in dict.fromkeys(level["stage"] for level in part["levels"] if not level["holds"]):
            name = stage.partition(",")[0] if stage.startswith("read") else stage
            if f"### {name}" in lines:
                continue
            rows = part["tables"].get(PROFILE + {"exact users": "solve users"}.get(name, name), [])
            text = " ".join(filter(None, (WHY.get(name), part["profiles"].get(name))))
            lines += ["", f"### {name}", *(["", text] if text else []), *(["", *table(rows)] if rows else [])]
    return lines if len(lines) > 2 else []


PROFILE = "profile of "
"""Beginning of the names of tables that belong to an explanation."""


def heading(part: str) -> str:
    return PARTS.get(part, (part.replace("_", " ").capitalize(), ""))[0]


def section(name: str, part: dict[str, Any]) -> list[str]:
    machine = part["machine"]
    busy = (
        f" The load average was **{number(machine['load_before'])}** when it began."
        if machine["load_before"] > measured.BUSY * machine["cores"]
        else ""
    )
    settings = ", ".join(
        f"{key} {value}" for key, value in part["settings"].items() if not isinstance(value, dict) and value
    )
    lines = [
        "",
        f"## {heading(name)}",
        "",
        *([PARTS[name][1], ""] if PARTS.get(name, ("", ""))[1] else []),
        f"Measured on {part['taken_at']} at commit {part['commit']}: {machine['processor']}, {machine['cores']} cores,"
        f" {machine['memory_gb']} GB, {machine['system']}.{busy}",
        *(["", f"Settings: {settings}."] if settings else []),
        *(["", *pictures(part)] if name == "growth" else []),
    ]
    for title, rows in part["tables"].items():
        if title.startswith(PROFILE):
            continue
        shown = by_size(rows) if {"stage", "interactions"} <= set(rows[0]) else rows
        lines += ["", f"### {heading(name)}: {title}", "", *table(shown)]
    return lines


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return a table of Markdown; a column that is empty in every row is left out."""
    if not rows:
        return ["Nothing."]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    columns = [column for column in columns if any(row.get(column) not in ("", None) for row in rows)]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [number(row.get(column, "")) for column in columns]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def number(value: Any) -> str:
    """Return a number as a page shows it: three digits, or all of a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def past(history: list[dict[str, Any]]) -> list[str]:
    """Return a table for each part with earlier commits: a row for each level that was measured in the newest one."""
    lines = []
    for part in dict.fromkeys(line["part"] for line in history):
        taken = [line for line in history if line["part"] == part and line["levels"]][-4:]
        if len(taken) > 1:
            settings = [line["settings"].get("interactions") for line in taken]
            heads = [
                f"{line['commit']}" + (f", {number(each)}" if each else "")
                for line, each in zip(taken, settings, strict=True)
            ]
            rows = []
            for level in taken[-1]["levels"]:
                row = {heading(part): level}
                row |= {
                    f"{n + 1}: {head}": line["levels"].get(level)
                    for n, (head, line) in enumerate(zip(heads, taken, strict=True))
                }
                rows.append(row)
            lines += [*table(rows), ""]
    return lines or ["Nothing earlier."]


# plots


def pictures(part: dict[str, Any]) -> list[str]:
    """Draw time and memory by size; return what the page shows of it."""
    factors = part["settings"]["factors"]
    jobs = sorted(
        (row for row in part["tables"]["job"] if row["factors"] == factors), key=lambda row: row["interactions"]
    )
    sizes = [row["interactions"] for row in jobs]
    curves = {}
    for key in ("seconds", "cpu"):
        times = defaultdict[str, list[float]](lambda: [0.0] * len(sizes))
        for row in (row for row in part["tables"]["stages"] if row["factors"] == factors):
            stage = row["stage"] if row["stage"] in STAGES else "others"
            times[stage][sizes.index(row["interactions"])] += row[key]
        curves[key] = times
    memory = {"worker, highest": [row["peak_mb"] / 1024 for row in jobs]}
    memory |= {"worker, estimate": [row["estimate_mb"] / 1024 for row in jobs if "estimate_mb" in row]}
    memory |= {"PostgreSQL": [row["server_mb"] / 1024 for row in jobs]}
    return [
        *draw("growth-time", "Seconds of each stage by the number of interactions", sizes, curves["seconds"], "s"),
        "",
        *draw("growth-cpu", "Processor time of the worker in each stage", sizes, curves["cpu"], "s"),
        "",
        *draw("growth-memory", "Memory by the number of interactions", sizes, memory, "GB"),
        "",
        "The smallest machine that has room for the worker and PostgreSQL together, a quarter of its memory left:",
        "",
        *table([machine_for(row) for row in jobs]),
    ]


def machine_for(job: dict[str, Any]) -> dict[str, Any]:
    memory = (job["peak_mb"] + job["server_mb"]) / 1024
    fits = next(size for size in (2**power for power in range(12)) if 0.75 * size >= memory)
    return {key: job[key] for key in ("interactions", "users", "items", "factors")} | {
        "worker": f"{number(job['peak_mb'] / 1024)} GB",
        "PostgreSQL": f"{number(job['server_mb'] / 1024)} GB",
        "machine": f"{fits} GB",
        "job": f"{number(job['seconds'] / 60)} min",
        "processor time": f"{number(job['both_cpu'] / 60)} min",
        "WAL": f"{number(job['wal_mb'] / 1024)} GB",
    }


def by_size(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each stage, with columns for each size."""
    wide = defaultdict[str, dict[str, Any]](dict)
    for row in rows:
        size = f"{row['interactions'] / 1e6:g} M, {row['factors']} f"
        wide[row["stage"]] |= {"stage": row["stage"], f"{size}: s": row["seconds"]}
        wide[row["stage"]] |= {f"{size}: CPU s": row["cpu"], f"{size}: MB": row["peak_mb"]}
    return list(wide.values())


def draw(name: str, description: str, sizes: list[int], curves: dict[str, list[float]], unit: str) -> list[str]:
    def curve(figure: Any) -> None:
        axes = figure.subplots()
        for mark, (label, values) in zip("os^vDPX*", curves.items(), strict=False):
            if len(values) == len(sizes):
                axes.loglog(sizes, [max(value, 1e-3) for value in values], marker=mark, label=label)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e6:g} M"))
        if unit == "GB":
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("interactions")
        axes.set_ylabel(unit)
        canvas.legend(figure, axes)

    file = io.BytesIO()
    figure = canvas.figure(canvas.Panel(name, description, curve, 6.5, 3.8))
    with canvas._style():
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date")))
    PICTURES[name] = file.getvalue()
    return [f"![{description}](pictures/{name}.svg)"]


def read() -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Return the parts that have results, in the order of PARTS, and the history."""
    found = {file.stem: json.loads(file.read_text()) for file in sorted(measured.RESULTS.glob("*.json"))}
    parts = {name: found.pop(name) for name in PARTS if name in found} | found
    history = measured.RESULTS / "history.jsonl"
    return parts, [json.loads(line) for line in history.read_text().splitlines()] if history.exists() else []


def main() -> None:
    (DOCS / "performance.md").write_text(page(*read()))
    for name, drawn in PICTURES.items():
        (DOCS / "pictures" / f"{name}.svg").write_bytes(drawn)


if __name__ == "__main__":
    main()
