"""A learning platform's views: two recommenders by language, saved and used again, evaluated, tuned, and queried."""

from pathlib import Path

from examples import pictures, workspace
from examples.learning_platform import data

COURSE = Path(__file__).parents[2] / "tests/data/oulad_aaa_sample.views.csv.gz"
SOURCE = """
    SELECT v.user_id, v.resource_id AS item_id, v.view_count AS value
    FROM learning.views v JOIN learning.resources r USING (resource_id) WHERE r.language = '{}'
"""
SIMILAR = """
    SELECT r.resource_id, r.title, r.subject, r.topic, r.tags, s.score
    FROM resources_en.similar_items(%(resource)s, 10) s JOIN learning.resources r ON r.resource_id = s.item_id
    ORDER BY s.score DESC
"""
SAME_TOPIC = """
    SELECT avg((o.topic = r.topic)::int) AS share
    FROM resources_en.popular_items(50) p JOIN learning.resources r ON r.resource_id = p.item_id
    CROSS JOIN LATERAL resources_en.similar_items(p.item_id, 10) s JOIN learning.resources o ON o.resource_id = s.item_id
"""
RECOMMENDED = """
    SELECT r.resource_id, r.title, r.subject, s.score
    FROM resources_en.recommend(%(user)s, 10) s JOIN learning.resources r ON r.resource_id = s.item_id
    ORDER BY s.score DESC
"""
QUIZZES = """
    SELECT r.title, s.score
    FROM resources_en.rank_items(%(user)s, ARRAY(SELECT resource_id FROM learning.resources WHERE tags LIKE 'quiz%%')) s
    JOIN learning.resources r ON r.resource_id = s.item_id
    WHERE s.score IS NOT NULL ORDER BY s.score DESC LIMIT 5
"""
VISITOR = """
    SELECT r.title, s.score
    FROM resources_en.recommend_for_items(ARRAY[%(resource)s], k => 5) s JOIN learning.resources r ON r.resource_id = s.item_id
    ORDER BY s.score DESC
"""


def tutorial(work: workspace.Workspace) -> None:
    """Do everything, and record what came out."""
    store, views, resources = work.store, work.output / "views.csv.gz", work.output / "resources.csv.gz"
    if work.data is None:
        data.write(views, resources, work.small)
    else:
        views, resources = work.data, work.data.with_name("resources.csv.gz")

    with work.step("Load the views and the resources"):
        work.fresh("learning", "resources_en", "resources_es", "course")
        store.load(views, "learning.views")
        store.load(resources, "learning.resources", primary_key="resource_id")
        work.sql("CREATE INDEX ON learning.views (user_id)")

    least, most = (20, 400) if work.small else (150, 20_000)
    for language in ("en", "es"):
        with work.step(f"A recommender of what is written in {language!r}, with the author's settings"):
            name = f"resources_{language}"
            store.create(
                name, query=SOURCE.format(language), titles="learning.resources:resource_id:title",
                min_user_views=5, min_item_views=least, max_item_views=most,
                confidence="linear", confidence_scale="none",
                factors=40, regularization=0.01, iterations=50, alpha=50,
            )  # fmt: skip
            store.retrain(name, reporter=work)

    with work.step("Save the model with its ids, and use it again without training"):
        resource = store.popular("resources_en", k=50)[-1].item_id
        before = work.show(SIMILAR, resource=resource)
        store.export("resources_en", work.output / "resources_en.npz")
        store.drop("resources_en")
        store.import_("resources_en", work.output / "resources_en.npz", create=True)
        work.record("the saved model gives the same ten", f"{work.sql(SIMILAR, resource=resource) == before}".lower())
        share = work.sql(SAME_TOPIC)[0]["share"]
        work.record(
            "of the ten most similar resources, of the same topic", f"{share:.0%}, in the mean of the 50 most viewed"
        )

    with work.step("Recommend, for a user, for a visitor, and quizzes only"):
        user = work.sql("SELECT user_id FROM learning.views GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1")[0]["user_id"]
        work.show(RECOMMENDED, user=user)
        work.show(QUIZZES, user=user)
        work.show(VISITOR, resource=resource)

    with work.step("What the author left open: a tenth of the pairs, hidden"):
        search = store.tune(
            "resources_en", split="share", share=0.1, trainer=["als"], max_factors=64 if work.small else 128,
            trials=5 if work.small else 16, time=1800, adopt=True, resize=True,
            report=work.output / "tuning.html", reporter=work, watch=work,
        )  # fmt: skip
        found = search.found.evaluation
        pairs, cells = found.train_pairs + found.test_pairs, found.users * found.items
        work.record("users x resources", f"{found.users:,} x {found.items:,}", "60,544 x 4,004")
        work.record("pairs", f"{pairs:,}, {1 - pairs / cells:.2%} of the matrix is empty", "526,114")
        names = {"resources_en, tuned": "tuned settings", "present settings": "author's settings"}
        recall = {names.get(result.name, result.name): result.metrics["recall@10"] for result in found.results}
        for name, value in recall.items():
            work.record(f"recall@10, {name}", f"{value:.3f}")
        bars = {name: (value, f"{value:.3f}") for name, value in recall.items()}
        pictures.bars(work.output / "recall.png", "recall@10 on a hidden tenth of the pairs", bars)
        store.retrain("resources_en", reporter=work)

    with work.step("The same on real clicks: the shipped sample of the Open University's data"):
        store.load(COURSE, "learning.clicks", primary_key="user_id,resource_id")
        store.create("course", table="learning.clicks", item="resource_id", value="view_count")
        real, by_popularity = (result.metrics["recall@10"] for result in store.evaluate("course").results[:2])
        words = f"{real:.3f}, popularity {by_popularity:.3f}"
        work.record("recall@10 on 364 real learners, defaults", words)

    work.summary = (
        "60,544 x 4,004 with 526,114 pairs",
        f"{found.users:,} x {found.items:,} with {pairs:,} pairs; recall@10 {recall[names['present settings']]:.3f} with the"
        f" author's settings, {recall['tuned settings']:.3f} tuned, {recall['popularity']:.3f} by popularity",
    )


if __name__ == "__main__":
    workspace.main(tutorial, __file__)
