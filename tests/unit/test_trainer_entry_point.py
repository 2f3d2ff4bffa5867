"""Trainers of other packages: a package with an entry point, installed by hand into a folder on sys.path."""

import numpy as np
import pytest
from scipy import sparse

from recstore.definition import Definition, Hyperparameters
from recstore.errors import InvalidInput
from recstore.model.trainers import Factors, trainer, trainer_names

PACKAGE = '''
import numpy as np
from recstore.model.trainers import Factors, FoldIn, item_users

class Popularity:
    """One factor: the share of the users, to a power."""

    def train(self, matrix, hyperparameters, *, factors, on_factors=None, **_):
        power = hyperparameters.options.get("power", 1)
        users = item_users(matrix)
        fold_in = FoldIn(((users / matrix.shape[0]) ** power).astype("f4")[:, None], users, {})
        if on_factors:
            on_factors(0, fold_in)
        return Factors(self.solve_users(matrix, fold_in), fold_in, "cpu", ())

    def solve_users(self, rows, fold_in, threads=0):
        return np.ones((rows.shape[0], 1), dtype="f4")

class Half:
    def train(self, matrix):
        pass

def broken():
    raise RuntimeError("no licence found")
'''


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package with these entry points, {name: object}."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(distribution="shopkeepers-trainers", **points):
        (tmp_path / "shopkeepers.py").write_text(PACKAGE)
        information = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (information / "entry_points.txt").write_text("\n".join(["[recstore.trainers]", *lines, ""]))

    return install


def test_an_installed_trainer_trains(install):
    install(popularity="shopkeepers:Popularity")
    matrix = sparse.csr_matrix(np.triu(np.full((4, 3), 61, dtype=np.float32)))
    given = Definition.model_validate(
        {"source": {"table": "views"}, "hyperparameters": {"trainer": "popularity", "options": {"power": 2}}}
    ).hyperparameters
    trained = trainer(given.trainer).train(matrix, given, factors=8)
    assert isinstance(trained, Factors)
    np.testing.assert_allclose(trained.item_factors[:, 0], [1 / 16, 4 / 16, 9 / 16])
    assert trainer_names() == ["als", "hybrid", "popularity", "ratings", "spectral"]
    with pytest.raises(InvalidInput, match="als, hybrid, popularity, ratings, spectral"):
        trainer("bpr")


def test_it_does_not_take_the_place_of_recstore_s_own(install):
    install(als="shopkeepers:Popularity")
    assert type(trainer("als")).__module__ == "recstore.model.trainers.als"
    assert trainer_names() == ["als", "hybrid", "ratings", "spectral"]


def test_of_two_with_one_name_the_first_package_is_taken(install):
    install("zebra", popularity="nowhere:Popularity")
    install("aardvark", popularity="shopkeepers:Popularity")
    assert type(trainer("popularity")).__name__ == "Popularity"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("nowhere:Popularity", "ModuleNotFoundError"),
        ("shopkeepers:Mean", "AttributeError"),
        ("shopkeepers:broken", "no licence found"),
        ("shopkeepers:Half", "solve_users"),
        ("shopkeepers:dict", "AttributeError"),
    ],
)
def test_a_broken_one_is_named_with_its_package(install, value, words):
    install(mine=value)
    with pytest.raises(InvalidInput, match=rf"'mine' .*shopkeepers-trainers .*{value}.*{words}"):
        trainer("mine")


def test_options_keep_their_types():
    options = {"power": 2, "rate": 0.5, "exact": True, "kind": "1"}
    kept = Hyperparameters.model_validate_json(Hyperparameters(options=options).model_dump_json()).options
    assert kept == options
    assert [type(value) for value in kept.values()] == [int, float, bool, str]


def test_hyperparameters_stored_before_there_were_other_trainers_are_valid():
    stored = {"trainer": "als", "factors": None, "regularization": 100.0, "alpha": 60.0, "iterations": 15, "seed": 42}
    assert Hyperparameters.model_validate(stored).model_dump() == Hyperparameters().model_dump() | stored


def test_every_hyperparameter_is_described():
    assert [name for name, field in Hyperparameters.model_fields.items() if not field.description] == []
