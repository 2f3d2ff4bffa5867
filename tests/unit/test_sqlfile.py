"""A statement is found by its name alone, so no two files may have one of the same name."""

from importlib import resources

from recstore.sql import queries


def test_no_two_statements_have_one_name() -> None:
    files = [file.name for file in resources.files("recstore").joinpath("sql").iterdir() if file.is_file()]
    names = [name for file in files for name in queries.load(file)]
    assert len(files) > 5
    assert len(set(names)) == len(names) > 100
