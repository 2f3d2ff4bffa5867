"""Likes of 3D models: thresholds until stable, a grid of 180 settings with learning curves, a refit, a page of similar models."""

from examples import workspace
from examples.likes import data, page

SMALL = {"factors": [8, 16], "regularization": [0.1], "alpha": [1, 10]}
GRID = {
    "factors": [10, 20, 40, 80, 120],
    "regularization": [0, 1e-5, 1e-3, 0.1, 10, 100],
    "alpha": [1, 10, 50, 100, 500, 1000],
}
SIMILAR = """
    SELECT m.modelname AS model, array_agg(o.modelname ORDER BY s.score DESC) AS similar
    FROM (SELECT item_id FROM models.popular_items(%(of)s) ORDER BY users, item_id LIMIT 8) p
    JOIN likes.models m ON m.mid = p.item_id
    CROSS JOIN LATERAL models.similar_items(p.item_id, 6) s
    JOIN likes.models o ON o.mid = s.item_id
    GROUP BY m.mid, m.modelname ORDER BY min(m.mid)
"""


def tutorial(work: workspace.Workspace) -> None:
    """Do everything, and record what came out."""
    store, likes = work.store, work.data or work.output / "likes.psv"
    if work.data is None:
        data.write(likes, work.small)

    with work.step("Load the likes, and list the models"):
        work.fresh("likes", "models")
        store.load(likes, "likes.likes", delimiter="|", quote="\\", escape="none")
        work.sql("""
            CREATE INDEX ON likes.likes (uid, mid);
            CREATE TABLE likes.models AS SELECT mid, min(modelname) AS modelname FROM likes.likes GROUP BY mid;
        """)
        store.create(
            "models", table="likes.likes", user="uid", item="mid", titles="likes.models:mid:modelname", duplicates="max",
            min_items_per_user=5, min_users_per_item=5, until_stable=True,
            confidence="binary", confidence_scale="none", dimensions=128, held_out=0,
        )  # fmt: skip

    with work.step("Try the grid, five likes held out of each of a fifth of the users with at least ten"):
        hidden = {"split": "user", "items": 5, "share": 0.2}
        search = store.tune(
            "models", grid=SMALL if work.small else GRID, metric="precision@5", include_seen=True, **hidden,
            curve=2, max_iterations=10 if work.small else 30, users=1500, time=21600, adopt=True,
            report=work.output / "grid.html", pictures=work.output, reporter=work, watch=work,
        )  # fmt: skip
        best, test = search.winner, search.found.evaluation
        study = store.study("models", search.study)
        minutes = (study.finished_at - study.created_at).total_seconds() / 60
        settings = "{factors} factors, regularization {regularization:g}, alpha {alpha:g}".format(**best.parameters)
        work.record("settings tried", f"{len(search.found.trials)}", "180")
        work.record("that took", f"{minutes:.0f} min", "two days")
        work.record("best settings", f"{settings}, at iteration {best.iterations}", "40, 0.1, 50 at iteration 22")
        work.record("its precision@5", f"{best.value:.4f} on the validation part", "0.0476")
        work.record("MSE over all cells", f"{test.results[0].metrics['mse']:.6f}")
        excluded = store.evaluate("models", **hidden, k=[5])
        for name, seen, unseen in zip(("it", "popularity", "item-kNN"), test.results, excluded.results, strict=False):
            both = f"{seen.metrics['precision@5']:.4f}; {unseen.metrics['precision@5']:.4f} without training items"
            work.record(f"precision@5 of {name} on the test part", both)

    with work.step("Refit on everything, and publish"):
        live = store.retrain("models", reporter=work).generation
        shape = next(row for row in store.generations("models") if row.generation == live)
        work.record("users and models after the thresholds", f"{shape.users:,} x {shape.items:,}")

    with work.step("Write a page of similar models"):
        page.write(work.output, work.show(SIMILAR, of=80 if work.small else 1000))

    work.summary = (
        "best of 180 settings: 40 factors, 0.1, alpha 50 at iteration 22, precision@5 0.0476, after two days",
        f"{settings} at iteration {best.iterations}, precision@5 {best.value:.4f}; the grid took {minutes:.0f} min",
    )


if __name__ == "__main__":
    workspace.main(tutorial, __file__)
