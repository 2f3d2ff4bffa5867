"""Answers with titles, as the command line shows them. An application asks over its own engine: `recstore.Recommender`."""

from typing import Any

from recstore import registry
from recstore.api.base import Part
from recstore.api.rows import Popular, Recommended, Similar
from recstore.api.rows.results import Id
from recstore.operations import questions
from recstore.operations.questions import Question
from recstore.postgres.connection import Connection
from recstore.sql.objects import Registered


class Asking(Part):
    """Lists of items. Ids may be given as texts."""

    def recommend(self, name: str, user_id: Id, *, k: int = 10, seen: bool = False) -> list[Recommended]:
        """What is recommended for a user, with `seen` also what the user has seen; popular items for one nobody knows.
        Raises RecommenderNotFound, NotTrained, InvalidInput."""
        with self._current() as opened:
            recommender = registry.get(opened, name)
            user = recommender.user_type.parse(str(user_id), "user id")
            question = questions.recommended(recommender, user, k, exclude_seen=not seen)
            return [Recommended(**row) for row in _rows(opened, recommender, k, question)]

    def similar(self, name: str, item_id: Id, *, k: int = 10, min_users: int = 3) -> list[Similar]:
        """The items most similar to one, among those with `min_users` distinct users; none for an unknown item."""
        with self._current() as opened:
            recommender = registry.get(opened, name)
            item = recommender.item_type.parse(str(item_id), "item id")
            question = questions.similar(recommender, item, k, min_users)
            return [Similar(**row) for row in _rows(opened, recommender, k, question)]

    def popular(self, name: str, *, k: int = 10) -> list[Popular]:
        """The most popular items, by distinct users."""
        with self._current() as opened:
            recommender = registry.get(opened, name)
            return [Popular(**row) for row in _rows(opened, recommender, k, questions.popular(recommender, k))]


def _rows(opened: Connection, recommender: Registered, k: int, question: Question) -> list[dict[str, Any]]:
    """The answer with the lookup table's title, whatever its column is called, as `title`."""
    questions.require_live(opened, recommender, k)
    titles = recommender.definition.titles
    rows = question.ask(opened)
    return [row | {"title": row.pop(titles.title)} for row in rows] if titles else rows
