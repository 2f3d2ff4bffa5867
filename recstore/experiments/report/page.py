"""One page of HTML for an evaluation or a search, with everything in it: no script, no address, pictures inline.

The page says what was found, shows it, and says how it was done. Whatever comes from a database is text and stays text:
the template escapes it, and the page's own content security policy allows no script and no request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from recstore.atomic import check_folder, check_place, write_bytes
from recstore.evaluation.results import Evaluation
from recstore.experiments.report import canvas, curve_plots, searches, tables, trial_rows, words
from recstore.experiments.report.canvas import THEME, WIDTH, Panel
from recstore.experiments.tuning.trials import SearchResult

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Picture:
    """A panel on the page."""

    name: str
    title: str
    description: str
    wide: bool
    svg: Markup


def write(path: Path, result: Evaluation | SearchResult, pictures: Path | None = None) -> list[Path]:
    """Writes the page to `path`, and PNG files of its pictures into the folder `pictures`, named after the page; returns
    the files. Each is there whole or not at all; the same result gives the same bytes. Raises ReportNotWritten, before
    anything is drawn where a folder is missing."""
    check_place(path)
    if pictures is not None:
        check_folder(pictures)
    files = {path: html(result).encode("utf-8", "replace")}
    if pictures is not None:
        for name, panels in _sheets(result).items():
            if panels:
                files[pictures / f"{path.stem}-{name}.png"] = canvas.png(canvas.sheet(panels))
    for file, content in files.items():
        write_bytes(file, content)
    return list(files)


def html(result: Evaluation | SearchResult) -> str:
    """The page as text."""
    search = result if isinstance(result, SearchResult) else None
    evaluation = result.evaluation if isinstance(result, SearchResult) else result
    context: dict[str, Any] = {
        "recommender": result.recommender,
        "theme": THEME,
        "search": None if search is None else _search(search),
        "evaluation": None if evaluation is None else _evaluation(evaluation),
    }
    return _environment().get_template("report.html").render(context)


def _sheets(result: Evaluation | SearchResult) -> dict[str, list[Panel]]:
    """The PNG files: by name, the panels in each."""
    if isinstance(result, SearchResult):
        own = {"search": searches.panels(result)}
        return own if result.evaluation is None else own | _sheets(result.evaluation)
    return {"learning-curves": _curve_panels(result)}


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda number: f"{number:,}",
        "score": words.score,
        "duration": words.duration,
        "moment": words.moment,
        "setting": words.setting,
    }
    return environment


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """What the template shows of an evaluation."""
    results = evaluation.results
    metric = tables.primary(results)
    return {
        "data": evaluation,
        "verdict": None if metric is None else tables.verdict(results, metric),
        "rows": tables.comparison(results),
        "definitions": words.definitions(metric for result in results for metric in result.metrics),
        "curves": _pictures(_curve_panels(evaluation)),
        "points": curve_plots.numbers(evaluation.curve),
        "models": [
            (result.name, words.settings(result.hyperparameters), words.duration(result.seconds)) for result in results
        ],
    }


def _curve_panels(evaluation: Evaluation) -> list[Panel]:
    """A panel for the metric that the page is about and for each other of its k or without one: at another k the curves
    look the same, so of those the page has the numbers alone; as of a single point, of a trainer without iterations."""
    if len(evaluation.curve) < 2:
        return []
    metric = tables.primary(evaluation.results) or ""
    chosen = tables.chosen_iterations(evaluation.results[0]) if evaluation.results else None
    if chosen not in {point.iteration for point in evaluation.curve}:
        chosen = None
    made = curve_plots.panels(evaluation.curve, chosen, first=metric)
    k = metric.partition("@")[2]
    return [panel for name, panel in made.items() if name.partition("@")[2] in ("", k)] or list(made.values())


def _search(search: SearchResult) -> dict[str, Any]:
    """What the template shows of a search."""
    best = trial_rows.winner(search)
    heads, rows = tables.trials(search)
    return {
        "data": search,
        "metric": words.metric_name(search.metric),
        "best": best,
        "best_value": None if best is None else words.score(trial_rows.measured(search, best)),
        "settings": [] if best is None else words.settings(best.parameters),
        "count": tables.counted(search),
        "seconds": words.duration(sum(trial.seconds or 0.0 for trial in search.trials)),
        "parameters": tables.searched(search),
        "pictures": _pictures(searches.panels(search)),
        "heads": heads,
        "rows": rows,
        "errors": sorted({trial.error for trial in search.trials if trial.error}),
    }


def _pictures(panels: Sequence[Panel]) -> list[Picture]:
    return [
        Picture(
            panel.name,
            panel.title,
            panel.description,
            panel.width > WIDTH,
            canvas.svg(canvas.figure(panel, titled=False), panel.name, labelled_by=f"{panel.name}-caption"),
        )
        for panel in panels
    ]
