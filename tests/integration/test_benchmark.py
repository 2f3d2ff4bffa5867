"""`recstore benchmark`: split files in, the same metrics through NumPy and through SQL out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Answer, Command, Database
from support import look

from recstore.evaluation.results import Evaluation

pytestmark = pytest.mark.usefixtures("calibrated")

SMALL = "--factors 12 --iterations 4 --regularization 20 --alpha 60"
"""Complete settings, since the defaults suit larger data and may change."""


def planted(folder: Path, users: int, items: int, clusters: int, text: bool = False) -> tuple[Path, Path]:
    """Write files of a split in lists: each user's items are mostly those of a cluster."""
    random = np.random.default_rng(5)
    size, name = items // clusters, "item-{}" if text else "{}"
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for user in range(users):
        own = (user % clusters) * size + np.minimum(random.geometric(5 / size, 24), size) - 1
        seen = random.permutation(np.unique(np.concatenate([own, random.integers(0, items, 6)])))
        for part, chosen in (("train", seen[4:]), ("test", seen[:4])):
            lines[part].append(" ".join([str(user), *(name.format(item) for item in chosen)]))
    paths = folder / "train.txt", folder / "test.txt"
    for path, part in zip(paths, lines.values(), strict=True):
        path.write_text("\n".join(part) + "\n")
    return paths


def metrics(answer: Answer) -> dict[str, dict[str, float]]:
    """Return the metrics of lists by model."""
    assert answer.code == 0, answer.err
    found = Evaluation.from_dict({name: value for name, value in answer.json.items() if name != "steps"})
    return {
        result.name.split(",")[0]: {name: value for name, value in result.metrics.items() if "@" in name and value}
        for result in found.results
    }


def schemas(database: Database) -> Any:
    return look(database, "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY 1")


def test_a_split_through_numpy_and_through_sql(recstore: Command, shop: Database, tmp_path: Path) -> None:
    train, test = planted(tmp_path, 200, 120, 6, text=True)
    before = schemas(shop)
    line = f"benchmark --train {train} --test {test} {SMALL} --search exact --k 5,10"
    answer = recstore(line + " --json")
    found = metrics(answer)
    assert list(found) == ["als", "popularity", "item-kNN", "EASE", "als through SQL"]
    assert found["als"] == found["als through SQL"]
    assert found["als"]["recall@10"] > 1.5 * found["popularity"]["recall@10"]
    assert schemas(shop) == before
    steps = [step["step"] for step in answer.json["steps"]]
    assert steps == ["read", "train", *["measure"] * 4, "store", "ask"]
    assert all(step["seconds"] >= 0 for step in answer.json["steps"])
    shown = recstore(line)
    for words in ("at 5", "als through SQL, exact scan", "95 % intervals", "als minus this: ndcg@10"):
        assert words in shown.out


def test_hnsw_is_within_a_hundredth(recstore: Command, tmp_path: Path) -> None:
    train, test = planted(tmp_path, 900, 2400, 12)
    answer = recstore(f"benchmark --train {train} --test {test} {SMALL} --search hnsw --json")
    found = metrics(answer)
    assert "HNSW" in answer.json["results"][-1]["name"]
    own, through_sql = found["als"], found["als through SQL"]
    assert own["recall@10"] > 0.05
    for name, value in own.items():
        assert through_sql[name] == pytest.approx(value, rel=0.01), name


def test_pairs_in_any_form_are_the_same_split(recstore: Command, tmp_path: Path) -> None:
    train, test = planted(tmp_path, 150, 60, 5)
    expected = metrics(recstore(f"benchmark --train {train} --test {test} {SMALL} --no-sql --json"))
    pairs = tmp_path / "train.csv"
    rows = [(user, item) for user, *items in map(str.split, train.read_text().splitlines()) for item in items]
    pairs.write_text("user,item,count\n" + "".join(f"{user},{item},1\n" for user, item in reversed(rows)))
    assert metrics(recstore(f"benchmark --train {pairs} --test {test} {SMALL} --no-sql --json")) == expected
    pairs.write_text("".join(f"{user}::{item}::{n % 5 + 1}::{n}\n" for n, (user, item) in enumerate(rows)))
    line = f"benchmark --train {pairs} --test {test} {SMALL} --no-sql --json"
    assert metrics(recstore(line)) != expected
    assert metrics(recstore(line + " --no-values")) == expected


def test_given_negatives_narrow_the_ranking_in_both(recstore: Command, tmp_path: Path) -> None:
    train, test = planted(tmp_path, 150, 60, 5)
    rows = [line.split() for line in test.read_text().splitlines()]
    test.write_text("".join(f"{row[0]}\t{row[1]}\t1\t0\n" for row in rows))
    random, negatives = np.random.default_rng(3), tmp_path / "test.negative"
    chosen = [(row, [item for item in random.permutation(60) if str(item) not in row[1:]][:20]) for row in rows]
    negatives.write_text("".join(f"({row[0]},{row[1]})\t" + "\t".join(map(str, n)) + "\n" for row, n in chosen))
    line = f"benchmark --train {train} --test {test} {SMALL} --k 5 --json"
    full, narrow = metrics(recstore(line + " --no-sql")), metrics(recstore(f"{line} --negatives {negatives}"))
    assert narrow["als"] == narrow["als through SQL"]
    assert narrow["als"]["hit_rate@5"] > full["als"]["hit_rate@5"]


def test_a_recommender_can_be_kept(recstore: Command, shop: Database, tmp_path: Path) -> None:
    train, test = planted(tmp_path, 60, 40, 4)
    line = f"benchmark --train {train} --test {test} {SMALL} --keep movies"
    recstore(line).expect(0, "recstore drop movies")
    assert len(recstore("recommend movies 1 -k 3 --json").json) == 3
    recstore(line).expect(2, "'movies'")
    recstore("drop movies --yes")
    assert "'movies_data'" in recstore(line).err
    assert look(shop, "SELECT count(*) AS n FROM movies_data.pairs")[0]["n"] > 300


def test_what_no_model_can_know_is_a_warning(recstore: Command, tmp_path: Path) -> None:
    train, test = planted(tmp_path, 60, 40, 4)
    first = train.read_text().split()[1]
    test.write_text(f"0 {first} 9999\n" + "\n".join(test.read_text().splitlines()[1:]) + "\n777 1 2\n")
    answer = recstore(f"benchmark --train {train} --test {test} {SMALL} --json --search exact")
    warnings = " ".join(answer.json["warnings"])
    for counted in ("1 of 240 test pairs", "1 of the test part's 61 users", "no model can find them"):
        assert counted in warnings
    found = metrics(answer)
    assert found["als"] == found["als through SQL"]


def test_without_the_store_no_database_is_needed(recstore: Command, tmp_path: Path) -> None:
    train, test = planted(tmp_path, 60, 40, 4)
    line = f"benchmark --train {train} --test {test} {SMALL}"
    assert recstore(line + " --no-sql --json", url="postgresql://nobody@127.0.0.1:1/none").code == 0
    assert "could not be reached" in recstore(line, url="postgresql://nobody@127.0.0.1:1/none").err


def test_a_search_chooses_before_the_test_part_is_measured(recstore: Command, tmp_path: Path) -> None:
    train, test = planted(tmp_path, 150, 60, 5)
    line = f"benchmark --train {train} --test {test} {SMALL} --no-sql"
    answer = recstore(line + " --tune --trials 2 --json").expect(0)
    assert [step["step"] for step in answer.json["steps"]][:3] == ["read", "tune", "train"]
    chosen, used = answer.json["steps"][1]["parameters"], answer.json["results"][0]["hyperparameters"]
    assert chosen["trainer"] == used["trainer"]
    assert chosen["factors"] == used["factors"]
    assert answer.json["train_pairs"] == recstore(line + " --json").json["train_pairs"]
    assert "--trials goes with --tune" in recstore(line + " --trials 2").err
