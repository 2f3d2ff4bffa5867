"""Ratings of jokes from -10 to 10: RMSE by iteration, the three most similar jokes, predicted ratings for a user."""

import html
import re

from examples import pictures, workspace
from examples.jokes import data

SIMILAR = """
    SELECT j.text AS joke, s.score
    FROM jokes_rated.similar_items(%(joke)s, 3) s JOIN jokes.jokes j ON j.joke_id = s.item_id
    ORDER BY s.score DESC
"""
PREDICTED = """
    SELECT r.score AS rating, left(j.text, 60) AS joke
    FROM jokes_rated.recommend(%(user)s, 5) r JOIN jokes.jokes j ON j.joke_id = r.item_id
    ORDER BY r.score DESC
"""


def tutorial(work: workspace.Workspace) -> None:
    """Do everything, and record what came out."""
    store, ratings = work.store, work.data or work.output / "jester_ratings.dat"
    texts = ratings.with_name("jester_items.dat")
    if work.data is None:
        data.write(ratings, texts, work.small)

    with work.step("Load the ratings, and the jokes without their HTML"):
        work.fresh("jokes", "jokes_rated")
        loaded = store.load(
            ratings, "jokes.ratings", delimiter="tab", header=False, columns="user_id,-,joke_id,-,rating"
        )
        work.sql(
            "CREATE INDEX ON jokes.ratings (user_id); CREATE TABLE jokes.jokes (joke_id integer PRIMARY KEY, text text)"
        )
        for number, text in re.findall(r"(\d+):\n(.*?)(?=\n\d+:\n|\Z)", texts.read_text(), re.DOTALL):
            plain = " ".join(html.unescape(re.sub("<[^>]*>", " ", text)).split())
            work.sql("INSERT INTO jokes.jokes VALUES (%(number)s, %(plain)s)", number=number, plain=plain)
        work.record("ratings", f"{loaded.written:,}")

    with work.step("Train with 16 factors, and measure each iteration on held-out ratings"):
        store.create(
            "jokes_rated", feedback="explicit", table="jokes.ratings", item="joke_id", value="rating",
            titles="jokes.jokes:joke_id:text", factors=16, iterations=10,
        )  # fmt: skip
        found = store.evaluate("jokes_rated", split="share", share=0.1, k=[5], curve=1, reporter=work)
        curve = {point.iteration: (point.train["rmse"], point.validation["rmse"]) for point in found.curve}
        for iteration, (train, validation) in curve.items():
            print(
                f"   iteration {iteration:2}   RMSE {train:.4f} on the training ratings, {validation:.4f} on the validation part"
            )
        pictures.curves(work.output / "rmse.png", "iteration", "RMSE", ("training ratings", "held-out ratings"), curve)
        model, biases = found.results[0].metrics, found.results[1].metrics
        work.record("iterations", f"{len(curve)}", "10 epochs")
        work.record("RMSE on held-out ratings", f"{model['rmse']:.3f}")
        work.record("MAE on held-out ratings", f"{model['mae']:.3f}")
        work.record("RMSE of biases alone", f"{biases['rmse']:.3f}")

    with work.step("Publish"):
        store.retrain("jokes_rated", reporter=work)
        unrated = (
            "SELECT count(*) AS n FROM jokes.jokes WHERE joke_id NOT IN (SELECT item_id FROM jokes_rated.item_vectors)"
        )
        work.record("jokes left out, without a rating", str(work.sql(unrated)[0]["n"]), "10 of 150")

    with work.step("The three jokes most similar to one"):
        joke = store.popular("jokes_rated", k=9)[-1].item_id
        print("   " + work.sql("SELECT text FROM jokes.jokes WHERE joke_id = %(joke)s", joke=joke)[0]["text"])
        work.show(SIMILAR, joke=joke)

    with work.step("Predicted ratings for a user, of jokes not rated yet"):
        work.show(PREDICTED, user=work.sql("SELECT min(user_id) AS one FROM jokes.ratings")[0]["one"])

    work.summary = (
        "16 factors, 10 epochs, ratings scaled to -1..1 and back by hand",
        f"RMSE {model['rmse']:.2f} on a scale of 20, biases alone {biases['rmse']:.2f}; nothing is scaled by hand",
    )


if __name__ == "__main__":
    workspace.main(tutorial, __file__)
