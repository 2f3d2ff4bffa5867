"""Write one HTML page for an evaluation or a search, with everything in it: no script, no address, pictures inline.

The page says what was found, shows it, and says how it was measured. Text from a database stays text: the template
escapes it, and the page's content security policy allows no script and no request.
"""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from recstore.atomic import check_place, make_folder, write_bytes
from recstore.evaluation.results import Evaluation
from recstore.experiments.report import canvas, curve_plots, result_tables, search_plots, trial_rows, words
from recstore.experiments.report.canvas import Panel
from recstore.experiments.tuning.trials import SearchResult


def write(path: Path, result: Evaluation | SearchResult, pictures: Path | None = None) -> list[Path]:
    """Write the page to `path`, and PNG files named after it into the folder `pictures`; return the files.

    The folder is created. Each file is complete or not there, and the same result gives the same bytes.

    Raises:
        ReportNotWritten: before anything is drawn if a place is not writable.
    """
    check_place(path)
    if pictures is not None:
        make_folder(pictures)
    files = {path: html(result).encode("utf-8", "replace")}
    if pictures is not None:
        for name, panels in _sheets(result).items():
            if panels:
                files[pictures / f"{path.stem}-{name}.png"] = canvas.png(canvas.sheet(panels))
    for file, content in files.items():
        write_bytes(file, content)
    return list(files)


def html(result: Evaluation | SearchResult) -> str:
    """Return the page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": "{:,}".format, "svg": canvas.svg}
    for word in (words.elapsed, words.metric_name, words.moment, words.score, words.setting, words.settings):
        environment.filters[word.__name__] = word
    return environment.get_template("report.html").render(
        recommender=result.recommender,
        search=result if isinstance(result, SearchResult) else None,
        evaluation=result.evaluation if isinstance(result, SearchResult) else result,
        canvas=canvas,
        curve_plots=curve_plots,
        search_plots=search_plots,
        tables=result_tables,
        trial_rows=trial_rows,
    )


def _sheets(result: Evaluation | SearchResult) -> dict[str, list[Panel]]:
    if isinstance(result, SearchResult):
        own = {"search": search_plots.panels(result)}
        return own if result.evaluation is None else own | _sheets(result.evaluation)
    return {"learning-curves": curve_plots.panels(result)}
