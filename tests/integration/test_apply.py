"""recstore apply: several recommenders in one file."""

from pathlib import Path

import pytest
from conftest import Command, Database

from recstore import Recstore, errors

FILE = """
[retail.source]
table = "shop.views"
item = "product_id"
value = "view_count"

[retail.hyperparameters]
factors = 8

[again.source]
query = "SELECT user_id, product_id AS item_id, view_count AS value FROM shop.views"
[again.schedule]
cron = "0 3 * * *"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "recommenders.toml"
    path.write_text(FILE)
    return path


def test_a_file_is_applied_once_and_then_there_is_nothing_to_do(shop: Database, recstore: Command, file: Path) -> None:
    refused = recstore("apply", str(file))
    assert refused.code == 2
    assert "Apply these 2 changes? Add --yes" in refused.err
    assert "create retail" in refused.out
    assert Recstore(shop.url).list() == []
    done = recstore("apply", str(file), "--yes")
    assert done.code == 0, done.err
    assert "  hyperparameters.factors = 8" in done.out
    assert "created again" in done.out
    assert recstore("apply", str(file)).out == ""
    store = Recstore(shop.url)
    assert store.show("again").definition["schedule"]["cron"] == "0 3 * * *"


def test_what_differs_is_shown_altered_and_dropped(shop: Database, recstore: Command, file: Path) -> None:
    store = Recstore(shop.url)
    store.apply(file)
    store.alter("retail", factors=16, min_user_views=3)
    file.write_text(FILE.partition("[again")[0])
    shown = recstore("apply", str(file), "--prune", "--yes")
    assert "  hyperparameters.factors: 16 -> 8" in shown.out
    assert "  filters.min_user_views: 3.0 -> None" in shown.out
    assert "dropped again" in shown.out
    assert [row.recommender for row in store.list()] == ["retail"]
    assert store.show("retail").definition["filters"]["min_user_views"] is None
    assert store.apply(file, prune=True) == []


def test_without_prune_others_stay_and_a_dry_run_changes_nothing(shop: Database, recstore: Command, file: Path) -> None:
    store = Recstore(shop.url)
    store.apply(file)
    file.write_text(FILE.partition("[again")[0].replace("factors = 8", "factors = 9"))
    assert "-- alter retail" in recstore("apply", str(file), "--dry-run").out
    assert store.show("retail").definition["hyperparameters"]["factors"] == 8
    assert [change.recommender for change in store.apply(file)] == ["retail"]
    assert len(store.list()) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (FILE.replace("cron =", "corn ="), "again: 'corn' is no setting of"),
        (FILE.replace("FROM shop.views", "FROM shop.nothing"), 'relation "shop.nothing" does not exist'),
        (FILE.replace("again.", ""), "source is no recommender with sections"),
        (FILE.replace("[again.schedule]", "[again.schedule"), "is not valid TOML"),
        (FILE.replace("factors = 8", "factors = 5000"), "5000"),
    ],
)
def test_a_file_with_a_mistake_changes_nothing(shop: Database, file: Path, text: str, words: str) -> None:
    store = Recstore(shop.url)
    file.write_text(text)
    with pytest.raises(errors.RecstoreError) as raised:
        store.apply(file)
    assert words in str(raised.value)
    assert store.list() == []
