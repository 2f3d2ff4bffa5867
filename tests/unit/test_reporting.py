import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise, product

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from recstore.atomic import check_report, write_bytes
from recstore.errors import ReportNotWritten
from recstore.evaluation.definitions import of_lists
from recstore.evaluation.results import CurvePoint, Evaluation, Example, ModelResult
from recstore.experiments.report import canvas, curve_plots, result_tables, search_plots, trial_rows, words
from recstore.experiments.report import page as report
from recstore.experiments.tuning.trials import SearchResult, TrialResult

EVIL = '<script>alert("x")</script> & <b>'


def curve(level=0.08, iterations=8, train=4.0, metrics=("ndcg@20",)):
    """Rise towards `level`, fall after the fifth point; on train `train` times as high and never falling."""
    points = []
    for n in range(1, iterations + 1):
        value = level * (1 - math.exp(-n / 2)) - 0.1 * level * max(0, n - 5)
        fitted = train * level * (1 - math.exp(-n / 2))
        points.append(
            CurvePoint(n, dict.fromkeys(metrics, fitted), {m: value * (1 + i) for i, m in enumerate(metrics)}, 0.1 * n)
        )
    return points


OWN = {"recall@20": 0.156, "ndcg@20": 0.1056, "mean_popularity@20": 247.0, "auc": 0.93661, "mse": 0.003}
SETTINGS = {"trainer": "als", "factors": 128, "iterations": 5, "confidence": {"function": "bm25", "k1": 100.0}}
POPULARITY = {"recall@20": 0.072, "ndcg@20": 0.0487, "mean_popularity@20": 535.2, "auc": 0.9366}
KNN = {"recall@20": 0.16, "ndcg@20": 0.08, "auc": 0.91, "mse": None}
EVALUATION = Evaluation(
    *("retail", "the last 20 % of all pairs by time", 42, 4285, 4006, 219075, 54769, 3012),
    [
        ModelResult("retail", OWN, 75.4, SETTINGS),
        ModelResult("popularity", POPULARITY, 0.002),
        ModelResult("item-kNN", KNN, 0.9),
    ],
    "2026-01-02T10:11:12+00:00",
    curve(metrics=("ndcg@10", "ndcg@20")),
    [Example(f"Similar to {EVIL}", [(EVIL, 0.93), ("TEA & CAKE", 0.5)]), Example("of nothing", [])],
    [f"beware of {EVIL}"],
)


def trial(number, value, state="complete", points=(), iterations=5, **parameters):
    return TrialResult(number, state, parameters, value, iterations, list(points), 1.5)


def search(trials, kind="optuna", metric="ndcg@20", best=None, evaluation=None, **scales):
    if best is None:
        best = max((t for t in trials if t.state == "complete"), key=lambda t: t.value).number
    return SearchResult(
        7, "retail", metric, "2 items of each user", kind, scales, trials, best, evaluation, "ended", None
    )


MIXED = search(
    [
        trial(0, 0.05, points=curve(0.05), regularization=0.1, function="log"),
        trial(1, 0.08, points=curve(0.08), regularization=10.0, function="bm25"),
        trial(2, 0.02, "pruned", curve(0.03, 2), regularization=0.01, function="bm25"),
        trial(3, None, "failed", regularization=1000.0, function="log"),
        trial(4, 0.07, points=curve(0.07), regularization=100.0, function="bm25", exponent=0.5),
    ],
    evaluation=EVALUATION,
    **{"regularization": "log", "function": "categorical", "exponent": "linear"},
)

POINTS = list(product((8, 16, 32), (1.0, 10.0), ("bm25", "log")))
VALUES = [0.051 + 0.01 * (n // 4) + 0.002 * (n // 2 % 2) - 0.001 * (n % 2) for n in range(12)]
GRID = search(
    [trial(n, VALUES[n], factors=f, alpha=a, function=word) for n, (f, a, word) in enumerate(POINTS)],
    kind="grid",
    **{"factors": "log", "alpha": "log", "function": "categorical"},
)


def drawn(found, title: str) -> Figure:
    """Draw the one panel of a search with this text in its title."""
    (panel,) = [panel for panel in search_plots.panels(found) if title in panel.title]
    return canvas.figure(panel)


def lines(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """Return the points of every labelled line."""
    return {
        str(line.get_label()): list(zip(line.get_xdata(), line.get_ydata(), strict=True))
        for axes in figure.axes
        for line in axes.get_lines()
        if not str(line.get_label()).startswith("_")
    }


class Page(HTMLParser):
    """A page's elements in order, with their text; fails on tags that do not match."""

    VOID = {"meta", "br", "img", "link", "input", "hr"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.raw, self.open, self.elements = text, [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "text": "", **dict(attrs)}
        self.elements.append(element)
        if tag in ("td", "th", "dt", "dd"):
            self.handle_data(" ")
        if tag not in self.VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, *tags):
        return [element for element in self.elements if element["tag"] in tags]


@pytest.fixture(scope="module")
def pages():
    return Page(report.html(EVALUATION)), Page(report.html(MIXED))


def test_scores_have_the_digits_that_mean_something():
    values = 0.15612, 0.00312, 0.0000312, 247.04, 12345.6, 1.0, -0.5, 0, None
    assert " ".join(map(words.score, values)) == "0.1561 0.00312 3.12e−05 247.0 12,346 1.000 −0.5000 0 –"


def test_differences_in_percent_or_as_multiples():
    pairs = (0.156, 0.072), (0.103, 0.1), (0.0995, 0.1), (0.1, 0.10001), (0.31, 0.0066)
    assert [words.change(*pair) for pair in pairs] == ["× 2.2", "+3.0 %", "−0.5 %", "±0 %", "× 47"]
    assert [words.change(*pair) for pair in ((0.1, 0.0), (None, 0.1), (0.1, None))] == [None] * 3


def test_settings_and_names():
    nested = {"factors": 128, "regularization": 57.5512, "seed": None, "confidence": {"k1": 100.0, "on": True}}
    assert [value for _, value in words.settings(nested)] == ["128", "57.55", "unset", "100", "yes"]
    assert words.settings(nested)[-1][0] == "confidence.on"
    names = "ndcg@20", "hit_rate@5", "mse", "novelty@3"
    assert [words.metric_name(name) for name in names] == ["NDCG@20", "hit rate@5", "MSE", "novelty@3"]
    assert [words.better(name) for name in ("ndcg@20", "mse", "mean_popularity@20")] == ["higher", "lower", None]
    assert words.moment("2026-01-02T10:11:12+02:00") == "2026-01-02 08:11 UTC"


def test_every_metric_has_its_definition_on_the_page():
    lists = of_lists(np.ones((1, 5), dtype=bool), np.ones(1, dtype=np.int64), [5])
    metrics = dict.fromkeys([*lists, "coverage@5", "mean_popularity@5", "auc", "mse"], 0.1)
    shown = Page(report.html(replace(EVALUATION, curve=[], results=[ModelResult("a", metrics, 0)])))
    terms = {element["text"].strip() for element in shown.all("dt")}
    assert {words.metric_name(metric).partition("@")[0] for metric in metrics} <= terms


def test_the_best_of_each_metric_and_the_differences_to_popularity():
    rows = dict(result_tables.comparison(EVALUATION.results))
    best = {name: [cell.best for cell in cells] for name, cells in rows.items()}
    assert best == {
        "recall@20": [False, False, True],
        "NDCG@20": [True, False, False],
        "mean popularity@20": [False] * 3,  # neither way is better
        "AUC": [True, True, False],  # they read the same
        "MSE": [False] * 3,  # one model alone has it
    }
    assert [cell.change for cell in rows["recall@20"]] == ["× 2.2", None, "× 2.2"]
    assert [cell.text for cell in rows["MSE"]] == ["0.003", "–", "–"]
    ((_, errors),) = result_tables.comparison([ModelResult("a", {"mse": 0.2}, 0), ModelResult("b", {"mse": 0.1}, 0)])
    assert [cell.best for cell in errors] == [False, True]
    assert result_tables.comparison([]) == []


def test_the_first_sentence_compares_the_primary_metric_with_both_baselines():
    for metrics, metric in ((["recall@5", "ndcg@5", "ndcg@20"], "ndcg@20"), (["auc", "ndcg@5"], "ndcg@5")):
        assert result_tables.primary([ModelResult("a", dict.fromkeys(metrics, 0.1), 0)]) == metric
    numbers = re.findall(r"[\d.]+(?= |\)|:)", result_tables.verdict(EVALUATION.results))
    assert numbers == ["20", "0.1056", "2.2", "0.0487", "32", "0.0800"]


def test_a_learning_curve_has_axes_for_each_part_and_marks_the_chosen_iteration():
    figure = canvas.figure(curve_plots.panel(curve(), "ndcg@20", chosen=4))
    upper, lower = figure.axes
    found = lines(figure)
    assert found["validation"] == [(point.iteration, point.validation["ndcg@20"]) for point in curve()]
    assert found["train"] == [(point.iteration, point.train["ndcg@20"]) for point in curve()]
    assert all(4 in line.get_xdata() for axes in (upper, lower) for line in axes.get_lines())
    assert [x for x, _ in found["chosen: 4"]] == [4, 4]
    assert max(lower.get_ylim()) > 3 * max(upper.get_ylim())


ERRORS = [CurvePoint(n, {}, {"mse": error}, 0.0) for n, error in ((1, 0.3), (2, 0.1), (3, 0.2))]


@pytest.mark.parametrize(("points", "own", "chosen"), [(curve(), 3, 3), (curve(), 99, 5), (ERRORS, None, 2)])
def test_curves_mark_the_iterations_of_the_model_else_the_best_on_validation(points, own, chosen):
    model = ModelResult("retail", dict.fromkeys(points[0].validation, 0.1), 1.0, {"iterations": own})
    for panel in curve_plots.panels(replace(EVALUATION, results=[model], curve=points)):
        assert f"chosen: {chosen}" in lines(canvas.figure(panel))


def test_a_curve_at_another_k_than_the_tables_is_drawn_at_its_own():
    panels = curve_plots.panels(replace(EVALUATION, curve=curve(metrics=("recall@50", "mse"))))
    assert [panel.title.partition(" by ")[0] for panel in panels] == ["recall@50", "MSE"]


def test_best_so_far_never_gets_worse_and_its_star_is_the_winner():
    figure = drawn(MIXED, "best so far")
    found = lines(figure)
    assert [y for _, y in found["best so far"]] == [0.05, 0.08, 0.08, 0.08]
    assert found["best (1)"] == [(1, 0.08)]
    assert [[x for x, _ in found[state]] for state in ("complete", "pruned", "failed")] == [[0, 4], [2], [3]]


def test_a_parameter_is_drawn_on_its_own_scale():
    figure = drawn(MIXED, "by regularization")
    found = lines(figure)
    assert figure.axes[0].get_xscale() == "log"
    assert found["best (1)"] == [(10.0, 0.08)]
    assert [x for x, _ in found["complete"]] == [0.1, 100.0]
    assert figure.axes[0].get_ylim()[0] < found["failed"][0][1] < 0.02  # on the lower edge, within sight
    categories = drawn(MIXED, "by function").axes[0]
    assert [label.get_text() for label in categories.get_xticklabels()] == ["bm25", "log"]
    assert drawn(MIXED, "by exponent").axes[0].get_xscale() == "linear"
    assert list(lines(drawn(MIXED, "by exponent"))) == ["complete"]  # the only trial that has it


@pytest.mark.parametrize(("values", "scale"), [((0.0, 1.0), "linear"), ((None, 64), "categorical"), ((1, 10), "log")])
def test_a_log_scale_gives_way_to_zero_and_numbers_to_words(values, scale):
    found = search([trial(n, 0.1 + n, alpha=value) for n, value in enumerate(values)], alpha="log")
    assert [parameter.scale for parameter in trial_rows.parameters(found)] == [scale]
    assert canvas.png(drawn(found, "by alpha"))


def test_trials_far_worse_than_most_stand_on_the_edge_and_are_named():
    values = [0.080 + 0.0001 * n for n in range(20)] + [0.001]
    many = search([trial(n, value, alpha=float(n + 1)) for n, value in enumerate(values)], best=0)
    figure = drawn(many, "by alpha")
    low, high = figure.axes[0].get_ylim()
    found = lines(figure)
    assert 0.07 < low < high < 0.09
    assert all(low < y < high for y in [found["far worse"][0][1], *(y for _, y in found["complete"])])
    assert [x for x, _ in found["far worse"]] == [21]
    assert re.search(r"Far worse[^.]*: trial 20\.", " ".join(Page(report.html(many)).all("main")[0]["text"].split()))
    few = search([trial(n, value, alpha=1.0) for n, value in enumerate((0.08, 0.081, 0.001))])
    assert drawn(few, "by alpha").axes[0].get_ylim()[0] < 0.001


def test_the_trials_curves_end_where_they_were_pruned():
    found = lines(drawn(MIXED, "of the trials"))
    assert len(found["pruned"]) == 2
    assert found["best (1)"] == [(5, MIXED.trials[1].curve[4].validation["ndcg@20"])]


def test_a_grid_has_a_heat_map_of_its_two_most_telling_parameters():
    titles = [panel.title.partition(" by ")[2] for panel in search_plots.panels(GRID)]
    assert titles == ["alpha and factors", "factors", "alpha", "function", "iterations"]
    (axes,) = drawn(GRID, "alpha and factors").axes
    (mesh,) = axes.findobj(QuadMesh)
    np.testing.assert_allclose(
        mesh.get_array().reshape(2, 3), [[0.051, 0.061, 0.071], [0.053, 0.063, 0.073]]
    )  # each the better of the two functions
    assert [text.get_text() for text in axes.texts] == ["0.0510", "0.0610", "0.0710", "0.0530", "0.0630", "0.0730"]
    (frame,) = axes.patches
    assert frame.get_xy() == (2, 1)
    failed = [one for one in GRID.trials if (one.parameters["factors"], one.parameters["alpha"]) != (8, 1.0)]
    assert len(drawn(replace(GRID, trials=failed), "alpha and factors").axes[0].texts) == 5


def test_a_grids_lines_have_one_through_the_best():
    figure = drawn(GRID, "NDCG@20 by factors")
    found = lines(figure)
    np.testing.assert_allclose(found["with the best"], [(8, 0.053), (16, 0.063), (32, 0.073)])
    assert found["best (10)"] == [(32, pytest.approx(0.073))]
    labels = [line.get_label() for line in figure.axes[0].get_lines()]
    assert labels.count("others") == 3  # two alphas by two functions, without the best's


ALPHAS = {
    "wide": [10.0 ** (n - 4) for n in range(12)],
    "narrow": [100.0 + n for n in range(12)],
    "close": [1.0, 1.01, 1.02, 500.0],
    "alone": [3.0],
    "long": [f"a rather long value {n}" for n in range(4)],
}


@pytest.mark.parametrize(("kind", "name"), [*((kind, "alpha") for kind in ALPHAS), ("wide", "name_" * 30)])
def test_labels_neither_overlap_nor_leave_the_picture(kind, name):
    values = ALPHAS[kind]
    trials = [trial(n, 0.1 + n / 9, **{name: value}) for n, value in enumerate(values)]
    figure = drawn(search(trials, **{name: "log"}), "NDCG@20 by ")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    labels = [label for place, label in ticks if low <= place <= high]
    assert len(labels) > 1 or len(values) == 1
    boxes = [label.get_window_extent() for label in [*labels, axes.xaxis.label]]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width + 1 and box.y0 >= 0 for box in boxes)
    if not any(label.get_rotation() for label in labels):
        assert all(before.x1 < after.x0 for before, after in pairwise(boxes[:-1]))


LITTLE = {
    "one trial": search([trial(0, 0.1, iterations=None, trainer="spectral"), trial(1, None, "failed", alpha=1.0)]),
    "one cell": search([trial(0, 0.1, alpha=3.0)], kind="grid", alpha="log"),
    "wide grid of equals": search([trial(n, 0.1, alpha=n % 15, k1=n // 15) for n in range(30)], kind="grid", best=0),
    "curve of one point": replace(EVALUATION, curve=curve(iterations=1), examples=[], warnings=[]),
}


@pytest.mark.parametrize("found", LITTLE.values(), ids=LITTLE)
def test_a_page_of_a_result_that_has_little_to_show(found):
    page = Page(report.html(found))
    assert "retail" in page.all("h1")[0]["text"]
    assert "Examples" not in [element["text"] for element in page.all("h2")]
    assert bool(page.all("svg")) == (found is not LITTLE["curve of one point"])


def test_the_page_needs_nothing_from_outside_and_runs_nothing(pages):
    for shown in pages:
        assert not shown.all("script", "link", "iframe", "object", "embed", "img", "image", "form")
        for element in shown.elements:
            assert not [name for name in element if name.startswith("on") or name in ("src", "srcset", "xlink:href")]
            assert str(element.get("href", "#")).startswith("#")
        assert "@import" not in shown.all("style")[0]["text"]
        policy = [meta["content"] for meta in shown.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
        assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
        assert not re.findall(r"https?:|//\w|url\((?!#)", shown.raw)


def test_pictures_take_their_colours_from_the_page_in_light_and_dark(pages):
    for shown in pages:
        defined = re.findall(r"--([a-z]+): #", shown.all("style")[0]["text"])
        assert [defined.count(name) for name in canvas.THEME] == [2] * len(canvas.THEME)
        pictures = shown.raw[shown.raw.index("<svg") : shown.raw.rindex("</svg>")]
        assert set(re.findall(r"var\(--([a-z]+)\)", pictures)) <= set(canvas.THEME)
        assert not re.findall(r": ?#[0-9a-f]{6}", pictures)


def test_text_from_a_database_stays_text(pages):
    assert pages[0].all("body")[0]["text"].count(EVIL) == 3  # a warning, a heading, a title
    assert not pages[0].all("script", "b")
    hostile = replace(
        EVALUATION, recommender=EVIL, split=EVIL, curve=[], results=[ModelResult(EVIL, {EVIL: 0.1}, 0, {EVIL: EVIL})]
    )
    assert not Page(report.html(hostile)).all("script", "b")
    named = search([trial(0, 0.1, **{EVIL: EVIL}), trial(1, 0.2, **{EVIL: "$x^2$ {} \\ 茶"})], **{EVIL: "categorical"})
    assert not Page(report.html(named)).all("script", "b")


def test_the_page_has_an_order_that_can_be_heard(pages):
    for shown in pages:
        levels = [int(str(element["tag"])[1]) for element in shown.all("h1", "h2", "h3", "h4")]
        assert levels[0] == 1 not in levels[1:]
        assert all(after <= before + 1 for before, after in pairwise(levels))
        by_id = {element["id"]: element for element in shown.elements if "id" in element}
        assert len(by_id) == len([element for element in shown.elements if "id" in element])
        assert {str(element.get("href", "#"))[1:] for element in shown.elements} <= {"", *by_id}
        assert all(by_id[e["aria-labelledby"]]["text"].strip() for e in shown.elements if "aria-labelledby" in e)
        assert [picture["role"] for picture in shown.all("svg")] == ["img"] * len(shown.all("figure"))
        assert all(len(by_id[picture["aria-labelledby"]]["text"]) > 20 for picture in shown.all("svg"))
        assert all(head.get("scope") in ("col", "row") for head in shown.all("th"))
        assert shown.all("html")[0]["lang"] == "en"
        assert shown.all("main")


def test_an_evaluations_page_has_its_figures(pages):
    page = pages[0]
    text = " ".join(str(page.all("body")[0]["text"]).split())
    figures = "× 2.2", "3,012", "4,006", "219,075", "54,769", EVALUATION.split, "2026-01-02 10:11 UTC", "1 min 15 s"
    assert not [figure for figure in (*figures, "confidence.k1 100") if figure not in text]
    bold = [element["text"] for element in page.all("strong") if element["text"][0].isdigit()]
    assert bold == ["0.1600", "0.1056", "0.9366", "0.9366"]
    assert [element["text"].split()[0] for element in page.all("figcaption")] == ["NDCG@20"]  # at 10 it looks the same
    rows = [row["text"].split() for row in page.all("tr")]
    for point in EVALUATION.curve:
        parts = [part[metric] for metric in ("ndcg@10", "ndcg@20") for part in (point.validation, point.train)]
        assert any(row[0] == str(point.iteration) and row[-4:] == list(map(words.score, parts)) for row in rows)


def test_a_searchs_page_has_its_figures(pages):
    text = " ".join(str(pages[1].all("body")[0]["text"]).split())
    figures = "Trial 1 of 5", "0.0800", "0.1056", "5 (3 complete, 1 failed, 1 pruned)", MIXED.split
    assert not [figure for figure in figures if figure not in text]
    rows = [row["text"].split() for row in pages[1].all("tr")]
    assert ["regularization", "log", "0.01,", "0.1,", "10,", "100,", "1000", "10"] in rows
    assert ["exponent", "linear", "0.5", "–"] in rows  # the best has none
    states = [row[1] for row in rows if row[1:2] in (["best"], ["complete"], ["pruned"], ["failed"])]
    assert states == ["best", "complete", "complete", "pruned", "failed"]


LARGEST = "alpha 1000 is the largest value tried; a larger one may be better: --grid alpha=.."
SMALLEST = "alpha 1 is the smallest value tried; a smaller one may be better: --grid alpha=.."


@pytest.mark.parametrize(
    ("values", "sentences"),
    [((0, 1, 2, 3), [LARGEST]), ((3, 2, 1, 0), [SMALLEST]), ((0, 2, 3, 1), []), ((0, 1, 1, 1), []), ((0, 1), [])],
)
def test_a_best_at_the_end_of_what_was_tried_is_reported(values, sentences):
    found = search([trial(n, 0.1 + value, alpha=float(10**n)) for n, value in enumerate(values)], alpha="log")
    assert trial_rows.edges(found) == sentences
    assert ("value tried" in report.html(found)) is bool(sentences)


def test_as_many_factors_as_there_can_be_are_no_edge():
    found = search([trial(n, 0.1 + n, factors=(8, 16, 32)[n]) for n in range(3)], factors="log")
    assert len(trial_rows.edges(found)) == 1
    assert trial_rows.edges(replace(found, evaluation=replace(EVALUATION, items=33))) == []


def test_intervals_and_differences_to_the_other_models_are_shown():
    results = [
        ModelResult("a", {"ndcg@20": 0.25, "coverage@20": 0.5}, 1.0, {}, {"ndcg@20": (0.24, 0.2625)}),
        ModelResult("popularity", {"ndcg@20": 0.1}, 0, {}, {"ndcg@20": (0.09, 0.11)}, {"ndcg@20": (0.14, 0.1612)}),
        ModelResult("EASE", {"ndcg@20": 0.26}, 0, {}, {}, {"ndcg@20": (-0.0212, 0.003)}),
    ]
    ((metric, cells),) = result_tables.differences(results)
    assert metric == "NDCG@20"
    assert [(cell.text, cell.interval, cell.best) for cell in cells] == [
        ("0.1500", "0.1400 to 0.1612", True),
        ("−0.0100", "−0.0212 to 0.003", False),
    ]
    assert "0.2400 to 0.2625" in result_tables.verdict(results)
    shown = Page(report.html(replace(EVALUATION, results=results)))
    texts = [cell["text"] for cell in shown.all("td")]
    assert any("0.0900 to 0.1100" in text for text in texts)
    assert any("−0.0212 to 0.003" in text for text in texts)
    assert result_tables.differences(EVALUATION.results) == []  # of a version without intervals
    assert "95 %" not in report.html(EVALUATION)


def test_the_same_result_gives_the_same_bytes_whatever_the_users_settings(tmp_path):
    folders = tmp_path / "a" / "deep", tmp_path / "b"  # are created
    before = dict(matplotlib.rcParams)
    small = search([trial(0, 0.1, alpha=3.0)], "grid", evaluation=replace(EVALUATION, curve=curve()), alpha="log")
    page = tmp_path / "page.html"
    contents = []
    for folder, settings in zip(folders, ({}, {"font.size": 30.0, "svg.fonttype": "none"}), strict=True):
        with matplotlib.rc_context(settings):
            files = report.write(page, small, folder)
        assert files == [page, folder / "page-search.png", folder / "page-learning-curves.png"]
        contents.append([file.read_bytes() for file in files])
    assert contents[0] == contents[1]
    assert all(picture.startswith(b"\x89PNG") for picture in contents[0][1:])
    assert not any(re.search(rb"tEXt|tIME|iTXt", picture) for picture in contents[0][1:])
    assert dict(matplotlib.rcParams) == before


def test_a_place_that_is_not_writable_is_reported_before_anything_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "html", lambda _: pytest.fail("drawn for nothing"))
    (tmp_path / "file").write_text("kept")
    for path in (tmp_path / "none" / "page.html", tmp_path, tmp_path / "file" / "page.html"):
        with pytest.raises(ReportNotWritten):
            check_report(path, None)
        with pytest.raises(ReportNotWritten):
            report.write(path, EVALUATION)
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("long" * 100)):
        with pytest.raises(ReportNotWritten):
            report.write(tmp_path / "page.html", EVALUATION, folder)
    with pytest.raises(ReportNotWritten):
        check_report(tmp_path / "page.html", tmp_path / "file" / "below")
    assert check_report(tmp_path / "page.html", tmp_path / "new" / "below") is None
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_the_former_page_and_a_new_one_keeps_its_mode(tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    page.write_text("former")
    page.chmod(0o600)
    with monkeypatch.context() as full:
        full.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(ReportNotWritten, match="No space left"):
            report.write(page, replace(EVALUATION, curve=[]))
    assert page.read_text() == "former"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    write_bytes(page, b"new")
    assert (page.read_bytes(), page.stat().st_mode & 0o777) == (b"new", 0o600)
