import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise, product

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from recstore.atomic import write_bytes
from recstore.errors import ReportNotWritten
from recstore.evaluation.results import CurvePoint, Evaluation, Example, ModelResult
from recstore.experiments.report import canvas, plots, tables, words
from recstore.experiments.report import page as report
from recstore.experiments.tuning.trials import SearchResult, TrialResult

EVIL = '<script>alert("x")</script> & <b>'


def curve(level=0.08, iterations=8, train=4.0, metrics=("ndcg@20",)):
    """Rises towards `level`, falls after the fifth point; on train `train` times as high and never falling."""
    points = []
    for n in range(1, iterations + 1):
        value = level * (1 - math.exp(-n / 2)) - 0.1 * level * max(0, n - 5)
        fitted = train * level * (1 - math.exp(-n / 2))
        points.append(
            CurvePoint(n, dict.fromkeys(metrics, fitted), {m: value * (1 + i) for i, m in enumerate(metrics)}, 0.1 * n)
        )
    return points


EVALUATION = Evaluation(
    recommender="retail",
    split="the last 20 % of all pairs by time are held out",
    seed=42,
    users=4285,
    items=4006,
    train_pairs=219075,
    test_pairs=54769,
    evaluated_users=3012,
    results=[
        ModelResult(
            "retail",
            {"recall@20": 0.156, "ndcg@20": 0.1056, "mean_popularity@20": 247.0, "auc": 0.93661, "mse": 0.003},
            75.4,
            {"trainer": "als", "factors": 128, "iterations": 5, "confidence": {"function": "bm25", "k1": 100.0}},
        ),
        ModelResult(
            "popularity", {"recall@20": 0.072, "ndcg@20": 0.0487, "mean_popularity@20": 535.2, "auc": 0.9366}, 0.002
        ),
        ModelResult("item-kNN", {"recall@20": 0.16, "ndcg@20": 0.08, "auc": 0.91, "mse": None}, 0.9),
    ],
    taken_at="2026-01-02T10:11:12+00:00",
    curve=curve(metrics=("ndcg@10", "ndcg@20")),
    examples=[Example(f"Similar to {EVIL}", [(EVIL, 0.93), ("TEA & CAKE", 0.5)]), Example("of nothing", [])],
    warnings=[f"beware of {EVIL}"],
)


def trial(number, value, state="complete", points=(), iterations=5, **parameters):
    return TrialResult(number, state, parameters, value, iterations, list(points), 1.5)


def search(trials, kind="optuna", metric="ndcg@20", best=None, evaluation=None, **scales):
    if best is None:
        best = max((t for t in trials if t.state == "complete"), key=lambda t: t.value).number
    return SearchResult(7, "retail", metric, "2 items of each user", kind, scales, trials, best, evaluation)


MIXED = search(
    [
        trial(0, 0.05, points=curve(0.05), regularization=0.1, function="log"),
        trial(1, 0.08, points=curve(0.08), regularization=10.0, function="bm25"),
        trial(2, 0.02, "pruned", curve(0.03, 2), regularization=0.01, function="bm25"),
        trial(3, None, "failed", regularization=1000.0, function="log"),
        trial(4, 0.07, points=curve(0.07), regularization=100.0, function="bm25", exponent=0.5),
    ],
    regularization="log",
    function="categorical",
    exponent="linear",
    evaluation=EVALUATION,
)

GRID = search(
    [
        trial(n, 0.05 + 0.01 * i + 0.002 * j + (0.001 if word == "bm25" else 0), factors=f, alpha=a, function=word)
        for n, ((i, f), (j, a), word) in enumerate(
            product(enumerate((8, 16, 32)), enumerate((1.0, 10.0)), ("bm25", "log"))
        )
    ],
    kind="grid",
    factors="log",
    alpha="log",
    function="categorical",
)


def lines(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """The points of every labelled line."""
    return {
        str(line.get_label()): list(zip(line.get_xdata(), line.get_ydata(), strict=True))
        for axes in figure.axes
        for line in axes.get_lines()
        if not str(line.get_label()).startswith("_")
    }


class Page(HTMLParser):
    """What a reader of the page meets: elements in order, with their text; fails on tags that do not match."""

    VOID = {"meta", "br", "img", "link", "input", "hr"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.raw = text
        self.open: list[dict[str, object]] = []
        self.elements: list[dict[str, object]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "text": "", **dict(attrs)}
        self.elements.append(element)
        if tag in ("td", "th", "dt", "dd"):
            self.handle_data(" ")
        if tag not in self.VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append({"tag": tag, "text": "", **dict(attrs)})

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, *tags):
        return [element for element in self.elements if element["tag"] in tags]


@pytest.fixture(scope="module")
def page():
    return Page(report.html(EVALUATION))


@pytest.fixture(scope="module")
def tuning():
    return Page(report.html(MIXED))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.15612, "0.1561"),
        (0.00312, "0.00312"),
        (0.0000312, "3.12e−05"),
        (247.04, "247.0"),
        (12345.6, "12,346"),
        (1.0, "1.000"),
        (-0.5, "−0.5000"),
        (0, "0"),
        (None, "–"),
        (math.nan, "–"),
        (True, "–"),
    ],
)
def test_scores_have_the_digits_that_mean_something(value, text):
    assert words.score(value) == text


@pytest.mark.parametrize(
    ("value", "reference", "text"),
    [
        (0.156, 0.072, "+117 %"),
        (0.103, 0.1, "+3.0 %"),
        (0.05, 0.1, "−50 %"),
        (0.0995, 0.1, "−0.5 %"),
        (0.1, 0.1, "±0 %"),
        (0.1, 0.10001, "±0 %"),
        (0.31, 0.0066, "× 47"),
        (0.1, 0.0, None),
        (None, 0.1, None),
        (0.1, None, None),
    ],
)
def test_differences_in_percent(value, reference, text):
    assert words.change(value, reference) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.002, "0.002 s"), (1.62, "1.6 s"), (59.9, "1 min"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (None, "–")],
)
def test_durations(seconds, text):
    assert words.duration(seconds) == text


def test_settings_and_names():
    nested = {"factors": 128, "regularization": 57.5512, "seed": None, "confidence": {"k1": 100.0, "on": True}}
    assert words.settings(nested) == [
        ("factors", "128"),
        ("regularization", "57.55"),
        ("seed", "unset"),
        ("confidence.k1", "100"),
        ("confidence.on", "yes"),
    ]
    assert [words.metric_name(name) for name in ("ndcg@20", "hit_rate@5", "mse", "novelty@3")] == [
        "NDCG@20",
        "hit rate@5",
        "MSE",
        "novelty@3",
    ]
    assert words.definitions(["recall@10", "novelty@3", "recall@20"]) == [
        ("recall@10, recall@20", "hits among the first k, divided by the user's held-out items")
    ]
    assert (words.better("ndcg@20"), words.better("mse"), words.better("mean_popularity@20")) == (
        "higher",
        "lower",
        None,
    )
    assert words.moment("2026-01-02T10:11:12+02:00") == "2026-01-02 08:11 UTC"
    assert words.moment("yesterday") == "yesterday"


def test_every_metric_there_is_has_its_definition_and_direction():
    from recstore.evaluation.definitions import of_lists

    one = np.ones(1, dtype=np.int64)
    metrics = [*of_lists(np.ones((1, 5), dtype=bool), one, [5]), "coverage@5", "mean_popularity@5", "auc", "mse"]
    assert len(words.definitions(metrics)) == len(metrics)


def test_the_best_of_each_metric_and_the_differences_to_popularity():
    rows = {row.name: row.cells for row in tables.comparison(EVALUATION.results)}
    assert [cell.best for cell in rows["recall@20"]] == [False, False, True]
    assert [cell.best for cell in rows["NDCG@20"]] == [True, False, False]
    assert [cell.best for cell in rows["AUC"]] == [True, True, False]  # they read the same
    assert [cell.best for cell in rows["mean popularity@20"]] == [False] * 3  # neither way is better
    assert [cell.best for cell in rows["MSE"]] == [False] * 3  # one model alone has it
    assert [cell.change for cell in rows["recall@20"]] == ["+117 %", None, "+122 %"]
    assert [cell.text for cell in rows["MSE"]] == ["0.00300", "–", "–"]
    errors = tables.comparison([ModelResult("a", {"mse": 0.2}, 0), ModelResult("b", {"mse": 0.1}, 0)])
    assert [cell.best for cell in errors[0].cells] == [False, True]
    assert tables.comparison([]) == []


def test_the_verdict_is_about_ndcg_beside_the_baselines():
    metric = tables.primary(EVALUATION.results)
    assert metric == "ndcg@20"
    assert tables.verdict(EVALUATION.results, metric) == (
        "NDCG@20 is 0.1056: +117 % against popularity (0.0487), +32 % against item-kNN (0.0800)."
    )
    assert tables.primary([ModelResult("a", {"recall@5": 0.1, "ndcg@5": 0.1}, 0)]) == "ndcg@5"
    assert tables.primary([ModelResult("a", {"auc": 0.1}, 0)]) == "auc"
    assert tables.primary([]) is None


def test_a_learning_curve_marks_the_chosen_iteration():
    figure = plots.learning_curve(curve(train=1.2), "ndcg@20", chosen=4)
    assert len(figure.axes) == 1
    found = lines(figure)
    assert [x for x, _ in found["chosen: 4"]] == [4, 4]
    assert found["validation"] == [(point.iteration, point.validation["ndcg@20"]) for point in curve()]
    assert [x for x, _ in found["train"]] == list(range(1, 9))


def test_without_a_choice_the_best_on_validation_is_marked():
    points = curve()
    best = max(points, key=lambda point: point.validation["ndcg@20"]).iteration
    assert 1 < best < len(points)
    assert f"chosen: {best}" in lines(plots.learning_curve(points, "ndcg@20"))
    errors = [CurvePoint(n, {}, {"mse": error}, 0.0) for n, error in ((1, 0.3), (2, 0.1), (3, 0.2))]
    assert "chosen: 2" in lines(plots.learning_curve(errors, "mse"))


def test_train_has_axes_of_its_own_where_it_would_flatten_validation():
    upper, lower = plots.learning_curve(curve(train=10), "ndcg@20").axes
    assert [line.get_label() for line in upper.get_lines() if line.get_label() == "validation"]
    assert max(lower.get_ylim()) > 5 * max(upper.get_ylim())


def test_curves_of_one_point_and_of_none():
    figure = plots.learning_curve(curve(iterations=1), "ndcg@20")
    assert len(lines(figure)["validation"]) == 1
    assert canvas.png(figure)
    assert canvas.png(plots.learning_curve([], "ndcg@20"))
    with pytest.raises(ValueError, match="no metric"):
        plots.learning_curves([])


def test_all_curves_on_one_sheet_share_the_chosen_iteration():
    points = curve(train=1.1, metrics=("recall@20", "ndcg@20"))
    figure = plots.learning_curves(points, chosen=3)
    assert len(figure.axes) == 2
    assert all("chosen: 3" in [line.get_label() for line in axes.get_lines()] for axes in figure.axes)


def test_best_so_far_never_falls_and_its_star_is_the_winner():
    figure = plots.best_so_far(MIXED)
    (step,) = [line for line in figure.axes[0].get_lines() if line.get_drawstyle() == "steps-post"]
    assert list(step.get_ydata()) == [0.05, 0.08, 0.08, 0.08]
    found = lines(figure)
    assert found["best (1)"] == [(1, 0.08)]
    assert [x for x, _ in found["pruned"]] == [2]
    assert [x for x, _ in found["failed"]] == [3]
    assert [x for x, _ in found["complete"]] == [0, 4]


def test_the_best_so_far_of_an_error_never_rises():
    errors = search([trial(n, value, alpha=1.0) for n, value in enumerate((0.3, 0.2, 0.4))], metric="mse", best=1)
    (step,) = [line for line in plots.best_so_far(errors).axes[0].get_lines() if line.get_drawstyle() == "steps-post"]
    assert list(step.get_ydata()) == [0.3, 0.2, 0.2, 0.2]


def test_a_parameter_is_drawn_on_its_own_scale():
    figure = plots.parameter(MIXED, "regularization")
    assert figure.axes[0].get_xscale() == "log"
    found = lines(figure)
    assert found["best (1)"] == [(10.0, 0.08)]
    assert [x for x, _ in found["complete"]] == [0.1, 100.0]
    low = figure.axes[0].get_ylim()[0]
    assert found["failed"][0][1] < 0.02 < 0.05
    assert found["failed"][0][1] > low  # on the lower edge, within sight

    categories = plots.parameter(MIXED, "function").axes[0]
    assert [label.get_text() for label in categories.get_xticklabels()] == ["bm25", "log"]
    assert plots.parameter(MIXED, "exponent").axes[0].get_xscale() == "linear"
    assert list(lines(plots.parameter(MIXED, "exponent"))) == ["complete"]  # the only trial that has it


def test_a_log_scale_gives_way_to_zero_and_numbers_to_words():
    zero = search([trial(0, 0.1, regularization=0.0), trial(1, 0.2, regularization=1.0)], regularization="log")
    assert plots.parameter(zero, "regularization").axes[0].get_xscale() == "linear"
    unset = search([trial(0, 0.1, factors=None), trial(1, 0.2, factors=64)], factors="log")
    labels = [label.get_text() for label in plots.parameter(unset, "factors").axes[0].get_xticklabels()]
    assert labels == ["64", "unset"]


def test_trials_far_worse_than_most_stand_on_the_edge():
    values = [0.080 + 0.0001 * n for n in range(20)] + [0.001]
    many = search([trial(n, value, alpha=float(n + 1)) for n, value in enumerate(values)], alpha="linear")
    figure = plots.parameter(many, "alpha")
    low, high = figure.axes[0].get_ylim()
    assert low > 0.07
    drawn = [y for _, y in lines(figure)["complete"]]
    assert all(low < y < high for y in drawn)
    few = search([trial(0, 0.08, alpha=1.0), trial(1, 0.081, alpha=2.0), trial(2, 0.001, alpha=3.0)], alpha="linear")
    assert plots.parameter(few, "alpha").axes[0].get_ylim()[0] < 0.001


def test_the_trials_curves_end_where_they_were_pruned():
    found = lines(plots.trial_curves(MIXED))
    assert len(found["pruned"]) == 2
    assert found["best (1)"] == [(5, MIXED.trials[1].curve[4].validation["ndcg@20"])]


def test_a_grid_has_a_heat_map_of_its_two_most_telling_axes():
    names = [panel.name for panel in report.searches.panels(GRID)]
    assert names == ["heat-map", "grid-factors", "grid-alpha", "grid-function"]
    (mesh,) = plots.grid_heat_map(GRID, "alpha", "factors").axes[0].findobj(QuadMesh)
    np.testing.assert_allclose(
        mesh.get_array().reshape(2, 3), [[0.051, 0.061, 0.071], [0.053, 0.063, 0.073]]
    )  # each the better of the two functions
    assert "factors" in report.searches.panels(GRID)[0].title
    assert "alpha" in report.searches.panels(GRID)[0].title


def test_a_grids_lines_have_one_through_the_best():
    found = lines(plots.grid_lines(GRID, "factors"))
    np.testing.assert_allclose(found["through the best"], [(8, 0.053), (16, 0.063), (32, 0.073)])
    assert found["best (10)"] == [(32, pytest.approx(0.073))]
    labels = [line.get_label() for line in plots.grid_lines(GRID, "factors").axes[0].get_lines()]
    assert labels.count("others") == 3  # two alphas by two functions, without the best's


def test_a_grids_cell_says_when_it_was_only_pruned():
    trials = [replace(one, state="pruned") if one.parameters["factors"] == 8 else one for one in GRID.trials]
    texts = [
        text.get_text() for text in plots.grid_heat_map(replace(GRID, trials=trials), "alpha", "factors").axes[0].texts
    ]
    assert texts == ["(0.0510)", "0.0610", "0.0710", "(0.0530)", "0.0630", "0.0730"]
    failed = [one for one in GRID.trials if (one.parameters["factors"], one.parameters["alpha"]) != (8, 1.0)]
    texts = [
        text.get_text() for text in plots.grid_heat_map(replace(GRID, trials=failed), "alpha", "factors").axes[0].texts
    ]
    assert texts[0] == "–"


LONG = search([trial(n, 0.1 + n, word=f"a rather long value {n}") for n in range(4)], word="categorical")
WIDE = search([trial(n, 0.1 + n / 9, alpha=10.0 ** (n - 4)) for n in range(12)], alpha="log")
NARROW = search([trial(n, 0.1 + n / 9, alpha=100.0 + n) for n in range(12)], alpha="log")
CLOSE = search([trial(n, 0.1 + n, alpha=value) for n, value in enumerate((1.0, 1.01, 1.02, 500.0))], alpha="log")
ALONE = search([trial(0, 0.1, alpha=3.0)], alpha="log")


@pytest.mark.parametrize("found", [LONG, WIDE, NARROW, CLOSE, ALONE], ids=["long", "wide", "narrow", "close", "alone"])
def test_labels_neither_overlap_nor_leave_the_picture(found):
    figure = plots.parameter(found, next(iter(found.scales)))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    labels = [label for place, label in ticks if low <= place <= high]
    assert len(labels) > 1 or len(found.trials) == 1
    rotated = any(label.get_rotation() for label in labels)
    boxes = [label.get_window_extent() for label in [*labels, *axes.texts]]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width + 1 and box.y0 >= 0 for box in boxes)
    if not rotated:
        assert all(before.x1 < after.x0 for before, after in pairwise(boxes[: len(labels)]))


@pytest.mark.parametrize(
    "found",
    [
        search([], best=0),
        search([trial(0, None, "failed", alpha=1.0)], best=0, alpha="log"),
        search([trial(0, None, "pruned", alpha=1.0), trial(1, None, "running", iterations=None)], best=5, alpha="log"),
        search([], kind="grid", best=0),
        search([trial(0, 0.1, alpha=3.0)], kind="grid", alpha="log"),
    ],
    ids=["no trial", "all failed", "unfinished", "empty grid", "one cell"],
)
def test_a_page_of_a_search_that_has_little_to_show(found):
    page = Page(report.html(found))
    assert "The test part has not been measured yet." in page.all("body")[0]["text"]
    assert "retail" in page.all("h1")[0]["text"]


def test_the_page_needs_nothing_from_outside_and_runs_nothing(page, tuning):
    for shown in (page, tuning):
        assert not shown.all("script", "link", "iframe", "object", "embed", "img", "image", "form")
        for element in shown.elements:
            assert not [name for name in element if name.startswith("on") or name in ("src", "srcset", "xlink:href")]
            assert str(element.get("href", "#")).startswith("#")
            assert re.fullmatch(
                r"[^(]*|.*(var|scale|translate|rotate|matrix|url\(#)\(?.*", str(element.get("style", ""))
            )
        (style,) = shown.all("style")
        assert "url(" not in style["text"]
        assert "@import" not in style["text"]
        policy = [meta["content"] for meta in shown.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
        assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
        assert not re.findall(r"https?:|//\w|url\((?!#)", shown.raw)


def test_text_from_a_database_stays_text(page):
    text = page.all("body")[0]["text"]
    assert text.count(EVIL) == 3  # a warning, a heading, a title
    assert not page.all("script", "b")
    assert "TEA & CAKE" in text
    hostile = replace(
        EVALUATION, recommender=EVIL, split=EVIL, curve=[], results=[ModelResult(EVIL, {EVIL: 0.1}, 0, {EVIL: EVIL})]
    )
    shown = Page(report.html(hostile))
    assert not shown.all("script", "b")
    assert shown.all("title")[0]["text"].startswith(EVIL)
    named = search([trial(0, 0.1, **{EVIL: EVIL}), trial(1, 0.2, **{EVIL: "$x^2$ {} \\ 茶"})], **{EVIL: "categorical"})
    assert not Page(report.html(named)).all("script", "b")


def test_the_page_has_an_order_that_can_be_heard(page, tuning):
    for shown in (page, tuning):
        levels = [int(str(element["tag"])[1]) for element in shown.all("h1", "h2", "h3", "h4")]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))
        ids = [element["id"] for element in shown.elements if "id" in element]
        assert len(ids) == len(set(ids))
        by_id = {element["id"]: element for element in shown.elements if "id" in element}
        for element in shown.elements:
            assert str(element.get("href", "#"))[1:] in {"", *ids}
            label = element.get("aria-labelledby")
            assert label is None or by_id[label]["text"].strip()
        for picture in shown.all("svg"):
            assert picture["role"] == "img"
            assert len(by_id[picture["aria-labelledby"]]["text"]) > 20
        assert all(head.get("scope") in ("col", "row") for head in shown.all("th"))
        assert shown.all("html")[0]["lang"] == "en"
        assert shown.all("main")


def test_what_the_page_says_of_an_evaluation(page):
    text = " ".join(str(page.all("body")[0]["text"]).split())
    for said in (
        "+117 % against popularity (0.0487)",
        "3,012 users evaluated over 4,006 items.",
        "the last 20 % of all pairs by time are held out",
        "219,075",
        "54,769",
        "seed 42",
        "2026-01-02 10:11 UTC",
        "1 min 15 s",
        "trainer als, factors 128, iterations 5, confidence.function bm25, confidence.k1 100",
        "hits among the first k, divided by the user's held-out items",
        "Nothing to show.",
    ):
        assert said in text
    assert [element["text"] for element in page.all("strong") if element["text"][0].isdigit()] == [
        "0.1600",
        "0.1056",
        "0.9366",
        "0.9366",
    ]
    assert [element["text"].split(" by ")[0] for element in page.all("figcaption")] == [
        "NDCG@20"
    ]  # at 10 it looks the same
    assert "NDCG@10, validation" in text
    assert "Validation: best with 0.1469 after 5 of 8 iterations. Train: 0.2937 after 5." in text


def test_what_the_page_says_of_a_search(tuning):
    text = " ".join(str(tuning.all("body")[0]["text"]).split())
    for said in (
        "Trial 1 of 5 is the best: NDCG@20 0.0800 on the validation part.",
        "On the test part, measured once: NDCG@20 is 0.1056",
        "5 (3 complete, 1 pruned, 1 failed)",
        "2 items of each user",
        "0.01, 0.1, 10, 100, 1000",
    ):
        assert said in text
    rows = [row["text"].split() for row in tuning.all("tr") if row["text"].split()[1:2] in (["best"], ["failed"])]
    assert [row[:3] for row in rows] == [["1", "best", "0.0800"], ["3", "failed", "–"]]
    titles = [caption["text"] for caption in tuning.all("figcaption")]
    assert [title.split(":")[0].split(" by ")[-1].split(" Tried")[0].split(" One")[0] for title in titles[:4]] == [
        "NDCG@20",
        "regularization",
        "function",
        "exponent",
    ]


def test_a_best_at_the_end_of_what_was_tried_is_said():
    at_end = search([trial(n, 0.1 + n, alpha=float(10**n)) for n in range(4)], alpha="log")
    within = search([trial(n, 0.1 + n % 3, alpha=float(10**n)) for n in range(4)], alpha="log")
    assert [row.at_end for found in (at_end, within) for row in tables.searched(found)] == [True, False]


def test_a_curve_of_one_point_is_shown_in_numbers():
    shown = Page(report.html(replace(EVALUATION, curve=curve(iterations=1), examples=[], warnings=[])))
    assert not shown.all("svg")
    assert "The curve has one point." in shown.all("body")[0]["text"]
    assert "Examples" not in [element["text"] for element in shown.all("h2")]


def test_the_same_result_gives_the_same_bytes_whatever_the_users_settings(tmp_path):
    first, second = tmp_path / "a.html", tmp_path / "b.html"
    before = dict(matplotlib.rcParams)
    small = replace(EVALUATION, curve=curve())
    assert report.write(first, small, tmp_path) == [first, tmp_path / "a-learning-curves.png"]
    with matplotlib.rc_context({"font.size": 30.0, "axes.grid": False, "svg.fonttype": "none", "lines.linewidth": 9}):
        report.write(second, small, tmp_path)
    assert dict(matplotlib.rcParams) == before
    assert first.read_bytes() == second.read_bytes()
    pictures = [(tmp_path / f"{name}-learning-curves.png").read_bytes() for name in "ab"]
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(b"\x89PNG")
    assert not re.search(rb"tEXt|tIME|iTXt", pictures[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a-learning-curves.png",
        "a.html",
        "b-learning-curves.png",
        "b.html",
    ]


def test_pictures_of_a_search_go_beside_those_of_its_winner(tmp_path):
    files = report.write(
        tmp_path / "page.html",
        search([trial(0, 0.1, alpha=3.0)], "grid", evaluation=replace(EVALUATION, curve=[]), alpha="log"),
        tmp_path,
    )
    assert [file.name for file in files] == ["page.html", "page-search.png"]


def test_what_can_not_be_written_is_said_before_anything_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "html", lambda _: pytest.fail("drawn in vain"))
    (tmp_path / "file").write_text("kept")
    for path, reason in (
        (tmp_path / "none" / "page.html", "there is no such folder"),
        (tmp_path, "that is a folder"),
        (tmp_path / "file" / "page.html", "that is not a folder"),
    ):
        with pytest.raises(ReportNotWritten, match=reason):
            report.write(path, EVALUATION)
    with pytest.raises(ReportNotWritten, match="there is no such folder"):
        report.write(tmp_path / "page.html", EVALUATION, tmp_path / "none")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("former")
    page.chmod(0o600)
    write_bytes(page, b"new")
    assert (page.read_bytes(), page.stat().st_mode & 0o777) == (b"new", 0o600)


def test_a_full_disk_leaves_the_former_page(tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    page.write_text("former")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(ReportNotWritten, match=r"page\.html: No space left on device"):
        report.write(page, replace(EVALUATION, curve=[]))
    assert page.read_text() == "former"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_the_command_line_does_not_wait_for_matplotlib():
    program = (
        "import sys, recstore.cli, recstore.atomic\n"
        "slow = {'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "assert not slow, slow\n"
        "import recstore.experiments.report.page\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
