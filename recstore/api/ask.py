"""Answers with titles, as people read them. An application asks over its own engine: `recstore.Recommender`."""

import csv
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from recstore import registry
from recstore.api.arguments import Argument, Name, Option
from recstore.api.base import Part
from recstore.api.rows import ComparedItem, Comparison, Explained, Id, Popular, Recommended, Similar
from recstore.definition import Period
from recstore.errors import GenerationNotFound, InvalidInput
from recstore.operations import questions, recommenders
from recstore.operations.questions import Question
from recstore.postgres.connection import Connection

T = TypeVar("T")

K = Annotated[int, Option("Number of rows.", "N", flags="--k -k")]


def _split(text: str) -> list[str]:
    return next(csv.reader([text]))


COMPLETE = ("live", "previous", "ready", "withheld")
"""States of the generations that answer."""


class Answer(list[T]):
    """Rows, the statement that returned them, and its own rows, whose titles have the lookup table's name."""

    def __init__(self, opened: Connection, question: Question, kind: Callable[..., T], empty: str) -> None:
        self.statement, self.rows = question.statement, question.ask(opened)
        self.empty = empty
        """The reason for an empty answer."""
        titles = question.recommender.definition.titles
        for row in self.rows:
            values = dict(row)
            if titles:
                values["title"] = values.pop("title" if titles.title in questions.OUTPUTS else titles.title)
            self.append(kind(**values))


class Asking(Part):
    """Lists of items. Ids may be given as texts."""

    def similar(
        self,
        name: Name,
        item_id: Annotated[Id, Argument("The item's id.")],
        *,
        k: K = 10,
        min_users: Annotated[int, Option("Least number of distinct users of a similar item.", "N")] = 3,
    ) -> list[Similar]:
        """List the items most similar to one.

        The list of an unknown item is empty. Raises RecommenderNotFound, NotTrained, InvalidInput.
        """
        with self._watching() as opened:
            recommender = registry.known(opened, name)
            item = recommender.item_type.parse(str(item_id), "item id")
            questions.require_live(opened, recommender, k)
            known = opened.execute(
                f"SELECT v.embedding IS NULL AS collapsed FROM {recommender.relation('item_vectors')} v WHERE v.item_id = %s",  # noqa: S608
                [item],
            ).fetchone()
            empty = f"{name} does not know the item {item_id}: it was not in the last training."
            if known and known["collapsed"]:
                empty = f"The item {item_id} has too few views for similar items."
            elif known:
                one = "candidate" if recommender.definition.candidates.given else "item"
                empty = f"No {one} with at least {min_users} users is similar to {item_id}; try --min-users 1."
            return Answer(opened, questions.similar(recommender, item, k, min_users), Similar, empty)

    def recommend(
        self,
        name: Name,
        user_id: Annotated[Id, Argument("The user's id; without one, --items.")] = None,
        *,
        k: K = 10,
        items: Annotated[
            Sequence[Id] | None,
            Option("Ids of a basket; with a user, all of these items in the user's order.", "ID,..", read=_split),
        ] = None,
        weights: Annotated[
            Sequence[float] | None,
            Option("Weights of the basket's items; below 0: less like this.", "X,..", read=_split),
        ] = None,
        seen: Annotated[bool, Option("Also items that the user has seen.")] = False,
        fresh: Annotated[
            bool | None,
            Option("Whether a known user's current interactions count, too; by default as the recommender says."),
        ] = None,
    ) -> list[Recommended]:
        """List the recommendations for a user, or for a basket; those of the fallback where nothing usable is known.

        Raises RecommenderNotFound, NotTrained, InvalidInput.
        """
        if (weights is not None and (items is None or user_id is not None)) or (
            items is not None and (seen or fresh is not None)
        ):
            raise InvalidInput("--weights goes with --items without a user, and --seen and --fresh without --items.")
        if items is None and user_id is None:
            raise InvalidInput("Name a user, or the items of a basket with --items.")
        with self._watching() as opened:
            recommender = registry.known(opened, name)
            user = None if user_id is None else recommender.user_type.parse(str(user_id), "user id")
            questions.require_live(opened, recommender, k)
            if items is not None:
                ids = [recommender.item_type.parse(str(item), "item id") for item in items]
                if user is not None:
                    return Answer(opened, questions.ranked(recommender, user, ids), Recommended, "There are no items.")
                if weights is not None and len(weights) != len(ids):
                    raise InvalidInput(f"There are {len(weights)} weights, but {len(ids)} items.")
                question = questions.for_items(recommender, ids, weights, k)
                return Answer(opened, question, Recommended, "There are no other items.")
            empty = "This user has seen everything."
            if recommender.definition.candidates.given:
                empty = "This user has seen every candidate, or there is none now."
            question = questions.recommended(recommender, user, k, exclude_seen=not seen, fresh=fresh)
            return Answer(opened, question, Recommended, empty)

    def explain(
        self,
        name: Name,
        user_id: Annotated[Id, Argument("The user's id.")],
        item_id: Annotated[Id, Argument("The item's id.")],
        *,
        k: K = 10,
    ) -> list[Explained]:
        """List the interactions that contribute most to a user's predicted preference for an item.

        All contributions add up to the predicted preference. Raises RecommenderNotFound, NotTrained, InvalidInput.
        """
        with self._watching() as opened:
            recommender = registry.known(opened, name)
            user = recommender.user_type.parse(str(user_id), "user id")
            item = recommender.item_type.parse(str(item_id), "item id")
            questions.require_live(opened, recommender, k)
            empty = "The model does not know this item, or this user has no usable interactions."
            return Answer(opened, questions.explained(recommender, user, item, k), Explained, empty)

    def popular(
        self,
        name: Name,
        *,
        k: K = 10,
        window: Annotated[
            Period | None, Option("Count the source within this time, for example '7 days'.", "TIME")
        ] = None,
        half_life: Annotated[Period | None, Option("Count a user half after each such time.", "TIME")] = None,
    ) -> list[Popular]:
        """List the most popular items, by distinct users.

        Raises RecommenderNotFound, NotTrained, InvalidInput.
        """
        with self._watching() as opened:
            recommender = registry.known(opened, name)
            questions.require_live(opened, recommender, k)
            limited = recommender.definition.candidates.given
            empty = "No item is a candidate now." if limited else "There are no items."
            if window:
                empty = f"No {'candidate' if limited else 'item'} has had a user within the last {window}."
            return Answer(opened, questions.popular(recommender, k, window, half_life), Popular, empty)

    def compare(
        self,
        name: Name,
        a: Annotated[int, Argument("A generation.", complete="generations")],
        b: Annotated[int, Argument("Another one.", complete="generations")],
        *,
        k: Annotated[int, Option("Length of the lists.", "N", flags="--k -k")] = 10,
        users: Annotated[int, Option("Number of users to compare.", "N", min=1)] = 1000,
    ) -> Comparison:
        """Compare the recommendations of two generations, live or not, for the same sample of users.

        Raises RecommenderNotFound, NotTrained, GenerationNotFound, InvalidInput.
        """
        with self._watching() as opened:
            recommender = registry.known(opened, name)
            questions.require_live(opened, recommender, k)
            complete = [row["generation"] for row in recommenders.generations(opened, name) if row["state"] in COMPLETE]
            for number in (a, b):
                if number not in complete:
                    raise GenerationNotFound(name=name, generation=number)
            summary, items = questions.compared(recommender, a, b, k, users)
            (row,) = summary.ask(opened)
            return Comparison(**row, items=Answer(opened, items, ComparedItem, "No item is in more or fewer lists."))
