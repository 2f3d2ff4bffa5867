"""A search's traces: the best value so far, the value against each parameter, the learning curves of its trials."""

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator

from recstore.experiments.report import canvas, grids
from recstore.experiments.report.axes import STEPS, marks, metric_axis, parameter_axis, star
from recstore.experiments.report.canvas import BLUE, INK, MUTED, ORANGE, PAPER, Panel
from recstore.experiments.report.trial_rows import best_of, complete, measured, parameters, scale, tried, winner
from recstore.experiments.report.words import finite, metric_name, score, setting
from recstore.experiments.tuning.trials import SearchResult

CROWD = 60
"""Trials above which their marks are smaller."""

SPREAD = 0.5  # of the distance between two
"""Width over which the points of one category are spread, so that they do not hide one another."""


def panels(search: SearchResult) -> list[Panel]:
    """Everything there is to see of a search, the most telling first. A grid has its axes; a search of other kind the
    best so far and each parameter; both the trials' learning curves, where they were kept."""
    if search.kind == "grid":
        found = grids.panels(search) or [best_so_far(search)]
    else:
        found = [best_so_far(search), *(parameter(search, name) for name in parameters(search) if tried(search, name))]
    if any(trial.curve for trial in search.trials):
        found.append(trial_curves(search))
    return found


def best_so_far(search: SearchResult) -> Panel:
    """Every trial's value in order, and the best until then."""
    metric, best = metric_name(search.metric), winner(search)
    steps: list[tuple[int, float]] = []
    for trial, value in complete(search):
        steps.append((trial.number, best_of(search.metric, [value, steps[-1][1]]) if steps else value))

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        numbers = {trial.number: float(trial.number) for trial in search.trials}
        _marks(axes, search, numbers)
        if steps:
            order, values = zip(*steps, strict=True)
            last = max(numbers.values())
            axes.step([*order, last], [*values, values[-1]], where="post", color=INK, linewidth=1.4)
        axes.set_xlabel("trial")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, steps=STEPS, min_n_ticks=1))
        axes.margins(x=0.05)
        canvas.legend(figure, [axes])

    text = "No trial ran to its end."
    if steps:
        text = f"From {score(steps[0][1])} in trial {steps[0][0]} to {score(steps[-1][1])}"
        text += "." if best is None else f" in trial {best.number}."
    return Panel("best-so-far", f"{metric}: best so far", text, draw)


def parameter(search: SearchResult, name: str) -> Panel:
    """Every trial's value against one of its parameters."""
    values = tried(search, name)
    kind = scale(search, name)
    best = winner(search)

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        place = parameter_axis(axes, search, name)
        spread = SPREAD * min(1.0, len(search.trials) / 50) if kind == "categorical" else 0.0
        places = {}
        for trial in search.trials:
            if name in trial.parameters:
                aside = spread * (trial.number * 0.618 % 1 - 0.5)
                places[trial.number] = place(trial.parameters[name]) + aside
        _marks(axes, search, places)
        canvas.legend(figure, [axes])

    if kind == "categorical":
        text = f"One of {', '.join(map(setting, values))}"
    else:
        text = f"Tried from {setting(values[0])} to {setting(values[-1])}{' on a log scale' if kind == 'log' else ''}"
    text += f"; the best trial has {setting(best.parameters[name])}." if best and name in best.parameters else "."
    return Panel(f"parameter-{canvas.slug(name)}", f"{metric_name(search.metric)} by {name}", text, draw)


def trial_curves(search: SearchResult) -> Panel:
    """The validation curves of all trials in one picture: where pruned ones ended, and the best one's."""
    best = winner(search)
    ended_early = sum(trial.state == "pruned" for trial in search.trials)

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        for trial in sorted(search.trials, key=lambda trial: (trial.number == search.best, trial.state, trial.number)):
            points = [(point.iteration, finite(point.validation.get(search.metric))) for point in trial.curve]
            line = [(iteration, value) for iteration, value in points if value is not None]
            if not line:
                continue
            iterations, values = zip(*line, strict=True)
            if trial is best:
                axes.plot(iterations, values, color=ORANGE, linewidth=2.2)
                at = dict(line)
                chosen = trial.iterations if trial.iterations in at else iterations[-1]
                star(axes, chosen, at[chosen], f"best ({trial.number})")
                continue
            pruned = trial.state == "pruned"
            axes.plot(
                iterations,
                values,
                color=MUTED if pruned else BLUE,
                linewidth=0.9,
                alpha=0.55,
                linestyle=(0, (3, 1)) if pruned else "solid",
                marker="v" if pruned else "o",
                markevery=[len(line) - 1],
                markersize=3.5,
                markerfacecolor=PAPER if pruned else BLUE,
                label=trial.state,
            )
        axes.set_xlabel("iterations")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, steps=STEPS, min_n_ticks=1))
        canvas.legend(figure, [axes])

    text = f"A line for each trial, on the validation part; {ended_early} of {len(search.trials)} were pruned."
    return Panel("trial-curves", f"{metric_name(search.metric)} of the trials by iterations", text, draw)


def _marks(axes: Axes, search: SearchResult, places: dict[int, float]) -> None:
    """A mark for each trial that has a place on x: full circles ran to their end, hollow triangles were pruned (at what
    they had reached), crosses on the lower edge failed, the star is the best. A trial far worse than most, or without a
    value, stands on the edge."""
    trials = [trial for trial in search.trials if trial.number in places]
    values = {trial.number: measured(search, trial) for trial in trials}
    ran = [value for trial in search.trials if (value := measured(search, trial)) is not None]
    within = metric_axis(axes, search, ran)
    low, high = axes.get_ylim()
    edge = low + 0.025 * (high - low)
    size = 5.0 if len(trials) <= CROWD else 3.8
    for state in ("complete", "pruned", "failed"):
        chosen = [trial.number for trial in trials if trial.state == state and trial.number != search.best]
        heights = [edge if (value := values[number]) is None else within(value) for number in chosen]
        marks(axes, state, [places[number] for number in chosen], heights, size)
    top = values.get(search.best)
    if top is not None:
        star(axes, places[search.best], within(top), f"best ({search.best})")
