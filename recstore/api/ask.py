"""Answers with titles, as people read them. An application asks over its own engine: `recstore.Recommender`."""

from dataclasses import dataclass
from typing import Annotated, Any

from recstore import registry
from recstore.api.arguments import Argument, Name, Option
from recstore.api.base import Part
from recstore.api.rows import Popular, Recommended, Similar
from recstore.api.rows.results import Id
from recstore.operations import questions
from recstore.operations.questions import Question
from recstore.postgres.connection import Connection

K = Annotated[int, Option("Number of rows.", "N", flags="--k -k")]


@dataclass(frozen=True)
class Answer:
    """Rows as the statement returns them, with the lookup table's own name of the titles; why there are none."""

    statement: str
    rows: list[dict[str, Any]]
    titles: str | None
    empty: str

    def renamed(self) -> list[dict[str, Any]]:
        """Return the rows with titles as `title`."""
        return [row | {"title": row.pop(self.titles)} for row in self.rows] if self.titles else self.rows


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
        return [Similar(**row) for row in self.answer_similar(name, item_id, k=k, min_users=min_users).renamed()]

    def recommend(
        self,
        name: Name,
        user_id: Annotated[Id, Argument("The user's id.")],
        *,
        k: K = 10,
        seen: Annotated[bool, Option("Also items that the user has seen.")] = False,
    ) -> list[Recommended]:
        """List the recommendations for a user; popular items for an unknown one.

        Raises RecommenderNotFound, NotTrained, InvalidInput.
        """
        return [Recommended(**row) for row in self.answer_recommend(name, user_id, k=k, seen=seen).renamed()]

    def popular(self, name: Name, *, k: K = 10) -> list[Popular]:
        """List the most popular items, by distinct users.

        Raises RecommenderNotFound, NotTrained, InvalidInput.
        """
        return [Popular(**row) for row in self.answer_popular(name, k=k).renamed()]

    def answer_similar(self, name: str, item_id: Id, *, k: int = 10, min_users: int = 3) -> Answer:
        """Return the rows of `similar` with their SQL."""
        with self._current() as opened:
            recommender = registry.get(opened, name)
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
            return _answer(opened, questions.similar(recommender, item, k, min_users), empty)

    def answer_recommend(self, name: str, user_id: Id, *, k: int = 10, seen: bool = False) -> Answer:
        """Return the rows of `recommend` with their SQL."""
        with self._current() as opened:
            recommender = registry.get(opened, name)
            user = recommender.user_type.parse(str(user_id), "user id")
            questions.require_live(opened, recommender, k)
            empty = "This user has seen everything."
            if recommender.definition.candidates.given:
                empty = "This user has seen every candidate, or there is none now."
            return _answer(opened, questions.recommended(recommender, user, k, exclude_seen=not seen), empty)

    def answer_popular(self, name: str, *, k: int = 10) -> Answer:
        """Return the rows of `popular` with their SQL."""
        with self._current() as opened:
            recommender = registry.get(opened, name)
            questions.require_live(opened, recommender, k)
            limited = recommender.definition.candidates.given
            empty = "No item is a candidate now." if limited else "There are no items."
            return _answer(opened, questions.popular(recommender, k), empty)


def _answer(opened: Connection, question: Question, empty: str) -> Answer:
    titles = question.recommender.definition.titles
    return Answer(question.statement, question.ask(opened), titles.title if titles else None, empty)
