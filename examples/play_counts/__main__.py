"""Play counts of artists: three implementations of ALS side by side, similar artists, recommendations scaled to 0..1."""

import sys
from pathlib import Path

from examples import pictures, workspace
from examples.play_counts import data

sys.path.insert(0, str(Path(__file__).parent / "trainers"))  # as if the package "opponents" were installed
TRAINERS = {"plain": "plain NumPy", "conjugate_gradient": "conjugate gradient", "als": "recstore"}
SIMILAR = """
    SELECT r.item_id AS recstore, p.item_id AS plain, c.item_id AS conjugate_gradient
    FROM artists_als.similar_items(%(artist)s, 10) WITH ORDINALITY r (item_id, score, place)
    JOIN artists_plain.similar_items(%(artist)s, 10) WITH ORDINALITY p (item_id, score, place) USING (place)
    JOIN artists_conjugate_gradient.similar_items(%(artist)s, 10) WITH ORDINALITY c (item_id, score, place) USING (place)
    ORDER BY place
"""
RECOMMENDED = """
    SELECT item_id AS artist, score FROM artists_als.recommend(%(user)s, 10, scale => 'unit') ORDER BY score DESC
"""


def tutorial(work: workspace.Workspace) -> None:
    """Do everything, and record what came out."""
    store, plays = work.store, work.data or work.output / "plays.tsv"
    if work.data is None:
        data.write(plays, work.small)

    with work.step("Load the play counts"):
        work.fresh("plays", *(f"artists_{trainer}" for trainer in TRAINERS))
        columns = "user_id,-,artist,plays"
        loaded = store.load(
            plays, "plays.plays", delimiter="tab", quote="none", escape="none", header=False, columns=columns
        )
        work.sql("CREATE INDEX ON plays.plays (user_id)")
        work.record("rows", f"{loaded.written:,}", "100,000")

    measured = {}
    for trainer, name in TRAINERS.items():
        with work.step(f"Train and measure: {name}"):
            store.create(
                f"artists_{trainer}", table="plays.plays", item="artist", value="plays", max_nulls=0.05,
                trainer=trainer, factors=20, iterations=20, regularization=0.1, alpha=40,
                confidence="linear", confidence_scale="none",
            )  # fmt: skip
            found = store.evaluate(f"artists_{trainer}", k=[10], split="user", reporter=work).results
            measured[name] = work.cpu["train"], found[0].metrics["ndcg@10"]
            original = {"plain": "30 minutes", "conjugate_gradient": "1.5 minutes"}.get(trainer, "")
            work.record(f"CPU time of training, {name}", f"{work.cpu['train']:.2f} s", original)
            work.record(f"NDCG@10, {name}", f"{found[0].metrics['ndcg@10']:.4f}")
            store.retrain(f"artists_{trainer}", reporter=work)
    other = store.evaluate("artists_als", k=[10], split="user", alpha=15).results[0].metrics
    work.record("NDCG@10, recstore with alpha 15", f"{other['ndcg@10']:.4f}")
    work.record("NDCG@10, popularity", f"{found[1].metrics['ndcg@10']:.4f}")
    defaults = {
        "alpha": None,
        "regularization": None,
        "factors": None,
        "confidence": "bm25",
        "confidence_scale": "mean",
    }
    best = store.evaluate("artists_als", k=[10], split="user", **defaults).results[0].metrics
    work.record("NDCG@10, recstore's defaults", f"{best['ndcg@10']:.4f}")
    bars = {name: (seconds, f"{seconds:.2f} s, NDCG@10 {ndcg:.3f}") for name, (seconds, ndcg) in measured.items()}
    pictures.bars(work.output / "times.png", "CPU time of training, seconds", bars, log=True)

    with work.step("Similar artists, side by side"):
        artist = store.popular("artists_als", k=20)[-1].item_id
        lists = work.show(SIMILAR, artist=artist)
        common = len({row["recstore"] for row in lists} & {row["plain"] for row in lists})
        work.record("of the ten most similar artists, common to plain NumPy and recstore", f"{common}")

    with work.step("Recommend what was not heard yet, with scores from 0 to 1"):
        user = work.sql("SELECT user_id FROM plays.plays LIMIT 1")[0]["user_id"]
        work.show(RECOMMENDED, user=user)

    seconds = [seconds for seconds, _ in measured.values()]
    work.summary = (
        "30 minutes by plain NumPy, 1.5 by conjugate gradient",
        "CPU time {:.1f} s by plain NumPy, {:.1f} s by conjugate gradient, {:.1f} s by recstore".format(*seconds)
        + f"; NDCG@10 {measured['recstore'][1]:.3f}, with the defaults {best['ndcg@10']:.3f}",
    )


if __name__ == "__main__":
    workspace.main(tutorial, __file__)
