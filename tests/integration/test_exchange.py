"""`recstore export` and `recstore import` on a real server: a generation goes out into a file that NumPy alone reads, and in
again elsewhere, under other id types too; what is wrong with a file costs nothing."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from conftest import Command, Database, copy_of, database_from, make_database, make_template
from support import Hook, look
from support_sql import rows, value

from recstore import registry
from recstore.definition import Gate, Hyperparameters, Publication, Schedule, Source, Storage
from recstore.embedded import Server
from recstore.errors import IdsDoNotConvert, ImportRefused, ImportShrunk, ReportNotWritten
from recstore.files.archive import exporting, reading
from recstore.files.archive.exporting import Archive
from recstore.files.archive.importing import import_generation
from recstore.model.trained import Stored
from recstore.operations import jobs
from recstore.publication import stored
from recstore.runs import LISTS_NAMESPACE, take_lock
from recstore.sql.generation import Generation

HYPERPARAMETERS = Hyperparameters(factors=8, iterations=6, regularization=5, alpha=60)
USERS = (1, 2, 14, 40, 99999)
ITEMS = (1, 2, 17, 60)

PRINTED = """
import sys
best = np.argsort(-scores)[:10]
print(json.dumps({
    "items": file["item_id"][best].tolist(), "scores": scores[best].tolist(), "factors": about["factors"],
    "trainer": about["training"]["trainer"],
    "modules": [name for name in sys.modules if name.split(".")[0] in ("recstore", "pyarrow")],
}))
"""


@pytest.fixture(scope="module")
def published(server: Server, shop_template: str) -> str:
    """A template: the shop with a live generation, of whose pairs a fifth is held out."""
    database = make_database(server, shop_template)
    database.create(hyperparameters=HYPERPARAMETERS, gate=Gate(held_out=0.2))
    assert database.retrain().live
    return make_template(database, "template_exchange")


here = copy_of("published")


@pytest.fixture(scope="module")
def exported(server: Server, published: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its generation in a file."""
    path = tmp_path_factory.mktemp("exchange") / "retail.npz"
    with database_from(server, published) as database:
        done = exporting.export(database.url, "retail", path)
    assert (done.generation, done.users, done.items, done.factors) == (1, 240, 120, 8)
    assert done.bytes == path.stat().st_size
    return path


@pytest.fixture
def file(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(exported, tmp_path / "retail.npz"))


def answers(database: Database, key: Any = int, kind: str = "bigint") -> dict[str, Any]:
    """What the functions return, by plain ids."""
    connection, found = database.connect(), {}
    for user in USERS:
        for name in ("recommend", "similar_users"):
            found[f"{name} {user}"] = rows(connection, f"SELECT * FROM retail.{name}(%s::{kind}, 10)", key(user))
        found[f"predict {user}"] = value(
            connection, f"SELECT retail.predict(%s::{kind}, %s)", key(user), key(1) if kind == "text" else 1
        )
    for item in ITEMS:
        given = key(item) if kind == "text" else item
        for name in ("similar_items", "users_for_item"):
            found[f"{name} {item}"] = rows(connection, f"SELECT * FROM retail.{name}(%s, 10)", given)
    found["popular"] = rows(connection, "SELECT * FROM retail.popular_items(10)")
    return found


def arrays_of(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def changed(path: Path, about: dict[str, Any] | None = None, **arrays: Any) -> Path:
    """The same file with other arrays, and other parts of `about`."""
    content = arrays_of(path) | arrays
    if about:
        content["about"] = np.array(json.dumps(json.loads(content["about"].item()) | about))
    np.savez(path, **content)
    return path


def read_back(database: Database, generation: int = 1) -> Stored:
    """A generation as a later training reads it."""
    connection = database.connect()
    of = Generation(registry.get(connection, "retail"), generation)
    found = stored.read(connection, database.url, of, "test")
    assert found is not None
    return found


def test_numpy_alone_gives_the_same_list(here: Database, exported: Path) -> None:
    """The example of the documentation, in a process that has NumPy and nothing of recstore's."""
    page = (Path(__file__).parents[2] / "docs/files.md").read_text().partition("## Files out and in")[2]
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[:1]
    done = subprocess.run(
        [sys.executable, "-c", example + PRINTED], capture_output=True, text=True, check=True, cwd=exported.parent
    )
    printed, said = done.stdout.splitlines()[0], json.loads(done.stdout.splitlines()[-1])
    expected = rows(here.connect(), "SELECT * FROM retail.recommend(42, 10, false)")
    assert said["items"] == [row["item_id"] for row in expected]
    assert printed == str(np.array(said["items"]))
    assert said["scores"] == pytest.approx([row["score"] for row in expected], rel=1e-5)
    assert (said["factors"], said["trainer"], said["modules"]) == (8, "als", [])


def test_what_is_in_the_file(here: Database, exported: Path) -> None:
    connection = here.connect()
    with np.load(exported, allow_pickle=False) as file:
        for side, columns in (("item", ("embedding", "preference")), ("user", ("preference",))):
            found = rows(connection, f"SELECT * FROM retail.{side}_vectors ORDER BY {side}_id")
            assert file[f"{side}_id"].tolist() == [row[f"{side}_id"] for row in found]
            assert file[f"{side}_length"].tolist() == [row["length"] for row in found]
            for name in columns:
                whole = np.array([json.loads(row[name]) for row in found], dtype=np.float32)
                np.testing.assert_array_equal(file[f"{side}_{name}"], whole[:, :8])
                assert not whole[:, 8:].any()
        told = json.loads(file["about"].item())
        assert (file["item_id"].dtype, file["user_id"].dtype) == (np.int32, np.int64)
        pairs = "SELECT item_id, count(*) AS users, sum(value)::float8 AS views FROM retail.interactions GROUP BY 1 ORDER BY 1"
        found = rows(connection, pairs)
        assert file["item_users"].tolist() == [row["users"] for row in found]
        assert file["item_views"].tolist() == [row["views"] for row in found]
        assert file["item_held_out"].sum() == told["held_out"]["pairs"] > 0
    (row,) = look(
        here,
        "SELECT definition, training, confidence, fold_in FROM recstore_private.generations g WHERE ready_at IS NOT NULL",
    )
    assert {name: told[name] for name in row} == row
    assert (told["recommender"], told["user_type"], told["versions"]["numpy"]) == ("retail", "bigint", np.__version__)
    assert not any(key in json.dumps(told) for key in ("held_out_key", "postgresql://"))


def test_a_round_trip_gives_the_same_answers(here: Database, recstore: Command, shop: Database, file: Path) -> None:
    before = answers(here)
    dry = recstore(f"import retail {file} --create --dry-run")
    assert "it would create the recommender retail" in dry.out
    assert recstore(f"import retail {file}").code == 2
    recstore(f"import retail {file} --create --yes").expect(0, "generation 1 of retail, imported from")
    assert answers(shop) == before
    assert "imported: retail.npz, generation 1 of 'retail'" in recstore("show retail").out
    (run,) = recstore("runs retail --job import --json").json
    assert (run["state"], run["outcome"]) == ("succeeded", "Generation 1 is live.")
    one, other = read_back(here), read_back(shop)
    np.testing.assert_array_equal(one.fold_in.item_factors, other.fold_in.item_factors)
    np.testing.assert_array_equal(one.fold_in.item_users, other.fold_in.item_users)
    assert one.confidence.idf is not None
    np.testing.assert_array_equal(one.confidence.idf, other.confidence.idf)
    assert one.alpha == other.alpha
    # a retrain goes on from it, and its gate says why nothing is compared; then back to the import, by rollback
    assert shop.retrain().live
    (trained,) = look(shop, "SELECT metrics, training FROM recstore_private.generations WHERE generation = 2")
    assert "is from a file" in trained["metrics"]["unknown"]
    assert jobs.roll_back(shop.url, "retail") == (2, 1)
    assert answers(shop) == before


def test_under_text_ids_and_back(shop: Database, here: Database, file: Path, tmp_path: Path) -> None:
    before = answers(here)
    source = Source(
        query="SELECT user_id::text AS user_id, product_id::text AS item_id, view_count AS value FROM shop.views"
    )
    shop.create(source=source.model_copy(update={"seen": "published"}), publication=Publication(search="hnsw"))
    assert import_generation(shop.url, shop.settings, "retail", file).live

    def plain(found: dict[str, Any]) -> dict[str, Any]:
        """With numbers for ids again, equals in the order of numbers."""
        told = {}
        for name, answer in found.items():
            if isinstance(answer, list):
                answer = [row | {key: int(row[key]) for key in row.keys() & {"item_id", "user_id"}} for row in answer]
                best = "users" if name == "popular" else "score"
                answer.sort(key=lambda row: (-row[best], -row.get("views", 0), row.get("item_id") or row["user_id"]))
            told[name] = answer
        return told

    assert plain(answers(shop, str, "text")) == plain(before)
    # and back under numbers: the file of the text generation says the same as the first
    back = tmp_path / "back.npz"
    exporting.export(shop.url, "retail", back)
    assert import_generation(here.url, here.settings, "retail", back).generation == 2
    assert answers(here) == before
    np.testing.assert_array_equal(read_back(here, 1).fold_in.item_users, read_back(here, 2).fold_in.item_users)


def test_into_the_same_recommender_the_gate_compares(here: Database, file: Path, recstore: Command) -> None:
    """The file's held-out pairs are those of this recommender: neither generation saw them."""
    here.alter(hyperparameters=HYPERPARAMETERS.model_copy(update={"factors": 1}))
    assert here.retrain(force=True).live
    bad = file.with_name("bad.npz")
    exporting.export(here.url, "retail", bad)
    good = import_generation(here.url, here.settings, "retail", file)
    assert good.live
    (gate,) = look(here, "SELECT stages FROM recstore_private.runs WHERE job = 'import'")
    (verdict,) = (stage for stage in gate["stages"] if stage["stage"] == "gate")
    assert (verdict["live"]["other"], verdict["live"]["difference"] > 0) == ("generation 2", True)
    with pytest.raises(ImportRefused, match=rf"worse than the live one.*Generation {good.generation} stays live"):
        import_generation(here.url, here.settings, "retail", bad)
    assert value(here.connect(), "SELECT retail.generation()") == good.generation
    recstore(f"import retail {bad} --force", url=here.url).expect(0, "Published by force although it is worse")


def test_what_is_being_exported_is_not_pruned(here: Database, file: Path, tmp_path: Path) -> None:
    assert import_generation(here.url, here.settings, "retail", file).live
    found = []
    settings = here.settings.model_copy(update={"prune_wait": 0.0})
    hook = Hook(on_progress=lambda _: found.append(jobs.prune(here.url, settings, "retail", keep=1)))
    exporting.export(here.url, "retail", tmp_path / "old.npz", generation=1, reporter=hook)
    assert [(done["pruned"], list(done["postponed"])) for done in found] == [([], [1])] * len(found)
    assert jobs.prune(here.url, settings, "retail", keep=1)["pruned"] == [1]
    with np.load(file) as one, np.load(tmp_path / "old.npz") as other:
        assert one.files == other.files
        assert all((one[name] == other[name]).all() for name in one.files if name != "about")


def test_without_people(here: Database, shop: Database, recstore: Command, tmp_path: Path) -> None:
    path = tmp_path / "items.npz"
    assert recstore(f"export retail {path} --no-users --json", url=here.url).json["users"] == 0
    with np.load(path) as file:
        assert not [name for name in file.files if name.startswith("user")]
    before = answers(here)
    recstore(f"import retail {path} --create --yes").expect(0, "The file has no users")
    after = answers(shop)
    assert all(after[f"similar_items {item}"] == before[f"similar_items {item}"] for item in ITEMS)
    assert {row["reason"] for row in after["recommend 14"]} == {"fold_in"}
    unknown = "SELECT retail.user_vector(99999)::real[] AS v"
    assert rows(shop.connect(), unknown) == rows(here.connect(), unknown)
    assert shop.retrain().live  # its confidence has the number of users that it was trained with
    recstore(f"import retail {path}").expect(5, "0 users instead of 240 (-100%)")


def test_the_wrong_file_and_ids_that_do_not_convert(here: Database, file: Path, recstore: Command) -> None:
    content = arrays_of(file)
    other = changed(Path(shutil.copy(file, file.with_name("other.npz"))), item_id=content["item_id"] + 1000)
    with pytest.raises(ImportShrunk, match="of the live generation's 120 items it has 0"):
        import_generation(here.url, here.settings, "retail", other)
    assert "refused without --force" in recstore(f"import retail {other} --dry-run", url=here.url).out
    texts = content["user_id"].astype("U20")
    texts[:2] = "042", "x"
    changed(file, {"user_type": "text"}, user_id=texts)
    with pytest.raises(IdsDoNotConvert, match=r"2 of 240 .* '042', 'x'"):
        import_generation(here.url, here.settings, "retail", file)
    assert value(here.connect(), "SELECT retail.generation()") == 1
    assert look(here, "SELECT FROM recstore_private.generations WHERE state = 'building'") == []


def test_users_that_nobody_knows_here_are_warned_of(shop: Database, file: Path, recstore: Command) -> None:
    query = "SELECT 'c' || user_id AS user_id, product_id AS item_id, 1 AS value FROM shop.views"
    shop.create(source=Source(query=query), schedule=Schedule(cron="0 3 * * *"))
    recstore(f"import retail {file}").expect(0, "None of 2 sampled users is in the source now", "0 3 * * *")


@pytest.mark.parametrize(
    ("stage", "stays"),
    [
        ("index", None),
        ("flip", "its generation 1 is live"),
        ("file", "Another run of 'retail' is in progress"),
    ],
)
def test_an_interrupted_import_leaves_nothing_or_warns(
    stage: str, stays: str | None, shop: Database, file: Path
) -> None:
    """It stays where its generation is live, or another run holds it."""
    with shop.connect() as other:

        def interrupt(done: str) -> None:
            if done == stage:
                if stage == "file":
                    take_lock(other, registry.get(other, "retail"), LISTS_NAMESPACE)
                raise KeyboardInterrupt

        watching = Hook(on_stage=interrupt)
        with pytest.raises(KeyboardInterrupt):
            import_generation(shop.url, shop.settings, "retail", file, create=True, reporter=watching)
    assert value(shop.connect(), "SELECT count(*) FROM recstore_private.recommenders") == bool(stays)
    assert bool(look(shop, "SELECT FROM pg_namespace WHERE nspname = 'retail'")) == bool(stays)
    if stays:
        assert f"'retail', made for this import, stays: {stays}" in watching.warnings[-1]
    if stage == "flip":
        assert value(shop.connect(), "SELECT retail.generation()") == 1


def test_the_sql_of_a_file_is_shown_before_a_recommender_is_created_with_it(
    shop: Database, file: Path, recstore: Command
) -> None:
    sql = "SELECT user_id, product_id AS item_id, 1 AS value FROM shop.views WHERE pg_sleep(0) IS NOT NULL"
    about = json.loads(arrays_of(file)["about"].item())
    changed(file, {"definition": about["definition"] | {"source": {"query": sql}}})
    assert f"source: query = {sql}" in recstore(f"import retail {file} --create --dry-run").out
    for output in "", " --json":
        refused = recstore(f"import retail {file} --create{output}").expect(2, "Add --yes")
        assert (f"source: query = {sql}" in refused.err, refused.out) == (True, "")
    assert look(shop, "SELECT FROM recstore_private.recommenders") == []
    recstore(f"import retail {file} --create --yes").expect(0)
    recstore(f"import retail {file} --create --force").expect(0)  # it exists, and keeps its own


def test_a_dry_run_looks_at_candidates_and_titles_too(shop: Database, file: Path, recstore: Command) -> None:
    definition = json.loads(arrays_of(file)["about"].item())["definition"]
    for part, said, missing in (
        ("candidates", {"table": "shop.nowhere"}, "shop.nowhere"),
        ("titles", {"table": "shop.nothing", "item": "product_id", "title": "title"}, "shop.nothing"),
    ):
        changed(file, {"definition": definition | {part: said}})
        dry, wet = (recstore(f"import retail {file} --create{option}") for option in (" --dry-run", ""))
        assert (dry.code, dry.err) == (wet.code, wet.err)
        assert (dry.code, missing in dry.err) == (2, True), dry.err
    assert look(shop, "SELECT FROM recstore_private.recommenders") == []


def test_a_host_s_limits_do_not_hold_for_an_export(
    here: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = ["statement_timeout", "idle_in_transaction_session_timeout"]
    with here.connect("postgres") as owner:
        if owner.info.server_version >= 170000:
            limits.append("transaction_timeout")
        for limit in limits:
            owner.execute(f"ALTER ROLE worker IN DATABASE {owner.info.dbname} SET {limit} = '1h'")
    found: list[Any] = []
    write = exporting._Writing.write

    def watched(writing: exporting._Writing, archive: Archive) -> None:
        found.extend(
            writing.transaction.row("SELECT " + ", ".join(f"current_setting('{limit}')" for limit in limits)) or ()
        )
        write(writing, archive)

    monkeypatch.setattr(exporting._Writing, "write", watched)
    exporting.export(here.url, "retail", tmp_path / "retail.npz")
    assert found == ["0"] * len(limits)


def test_too_many_factors(shop: Database, file: Path, recstore: Command) -> None:
    vectors = ("item_embedding", "item_preference", "user_preference", "mean_preference")
    wide = {name: np.pad(arrays_of(file)[name].T, [(0, 72)] + [(0, 0)] * (name[:4] != "mean")).T for name in vectors}
    changed(file, {"factors": 80}, **wide)
    shop.create()
    recstore(f"import retail {file}").expect(2, "recstore alter retail --factors 80 --resize")


def test_the_file_is_there_whole_or_not_at_all(
    here: Database, file: Path, recstore: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = file.read_bytes()
    for problem, raised in ((KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "No space left"), ReportNotWritten)):
        monkeypatch.setattr(exporting, "id_arrays", Mock(side_effect=problem))
        with pytest.raises(raised):
            exporting.export(here.url, "retail", file)
    assert [path.name for path in file.parent.iterdir()] == ["retail.npz"]
    assert file.read_bytes() == kept
    monkeypatch.undo()
    assert recstore(f"export retail {file} --yes", url=here.url).code == 0
    assert file.read_bytes() != kept  # exported at another time
    assert zipfile.is_zipfile(file)
    assert reading.read(file).about.generation == 1


def test_half_precision_uuids_a_hybrid_and_a_collapsed_item(shop: Database, tmp_path: Path) -> None:
    path = tmp_path / "half.npz"
    query = "SELECT md5(user_id::text)::uuid AS user_id, product_id AS item_id, view_count AS value FROM shop.views"
    shop.create(
        source=Source(query=query),
        storage=Storage(vector_type="halfvec"),
        hyperparameters=Hyperparameters(trainer="hybrid", factors=16, iterations=3),
        gate=Gate(held_out=0.2),
        publication=Publication(search="hnsw", index_users=True),
    )
    assert shop.retrain().live
    connection = shop.connect()
    connection.execute("UPDATE retail._items_1 SET (embedding, preference) = (NULL, NULL) WHERE item_id = 5")
    exporting.export(shop.url, "retail", path)
    with np.load(path, allow_pickle=False) as file:
        assert (file["item_embedding"].dtype, file["user_preference"].dtype) == (np.float16, np.float16)
        assert not file["item_embedding"][file["item_id"] == 5].any()
        assert file["user_id"].dtype == "U36"
    outcome = import_generation(shop.url, shop.settings, "retail", path)
    assert outcome.live
    assert any("1 item collapsed" in warning for warning in outcome.warnings)
    for table, key in (("items", "item_id"), ("users", "user_id")):
        first, second = (
            rows(connection, f"SELECT * FROM retail._{table}_{number} ORDER BY {key}")
            for number in (1, outcome.generation)
        )
        assert [row | {"generation": 1} for row in second] == first
    one, two = read_back(shop), read_back(shop, outcome.generation)
    assert (one.fold_in.constants, one.held_out) == (two.fold_in.constants, two.held_out)
