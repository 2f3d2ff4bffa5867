"""The tutorials: each runs with one command and finds what its data hold, and the READMEs show what was measured."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import VERSION, Database

sys.path.insert(0, str(Path(__file__).parents[2]))

from examples import workspace

FOLDERS = {file.parent.name: file.parent for file in workspace.HERE.glob("*/__main__.py")}
PICTURE = re.compile(r"\]\(((?:\w+/)?[\w-]+\.(?:png|svg))\)")


def run(name: str, database: Database, output: Path) -> dict[str, str]:
    """Run a tutorial at its small size; return its figures."""
    tutorial = importlib.import_module(f"examples.{name}.__main__").tutorial
    script = str(FOLDERS[name] / "__main__.py")
    options = ["--size", "small", "--database", database.url, "--output", str(output)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", sys.path[:])
        work = workspace.main(tutorial, script, options)
    figures = json.loads((output / "figures.json").read_text())
    assert figures["rows"] == [list(row) for row in work.rows]
    for picture in PICTURE.findall((FOLDERS[name] / "README.md").read_text()):
        assert (output / picture).stat().st_size > 1000
    return {what: here for what, _, here in figures["rows"]}


def test_a_learning_platform(empty: Database, tmp_path: Path) -> None:
    found = run("learning_platform", empty, tmp_path)
    assert found["the saved model gives the same ten"] == "true"
    share = found["of the ten most similar resources, of the same topic"].partition("%")[0]
    assert int(share) > 25  # of nine topics: 11 by chance
    names = ("popularity", "author's settings", "tuned settings")
    popularity, author, tuned = (float(found[f"recall@10, {name}"]) for name in names)
    assert popularity < author < tuned
    assert (tmp_path / "tuning.html").exists()
    # another run replaces what is the tutorial's, and nothing else
    work = again(empty, tmp_path)
    work.sql("CREATE SCHEMA other")
    with pytest.raises(SystemExit, match="There is a schema other already"):
        work.fresh("other")
    work.fresh("learning", "resources_en", "resources_es", "course")
    assert work.store.list() == []
    assert work.sql("SELECT to_regclass('learning.views') AS it") == [{"it": None}]


def again(database: Database, output: Path) -> workspace.Workspace:
    work = workspace.Workspace("again", workspace.Recstore(database.url), output, None, True)
    database.opened.append(work.connection)
    return work


def test_play_counts(empty: Database, tmp_path: Path) -> None:
    found = run("play_counts", empty, tmp_path)
    assert float(found["NDCG@10, recstore's defaults"]) > float(found["NDCG@10, popularity"]) > 0.05
    one, other = (float(found[f"NDCG@10, {name}"]) for name in ("conjugate gradient", "recstore"))
    assert one == pytest.approx(other, rel=0.2)  # the same steps from the same beginning, in another precision


def test_likes(empty: Database, tmp_path: Path) -> None:
    found = run("likes", empty, tmp_path)
    own, popular = (float(found[f"precision@5 of {name} on the test part"].split()[1]) for name in ("it", "popularity"))
    assert own > 1.3 * popular
    assert found["settings tried"] == "4"
    page = (tmp_path / "similar.html").read_text()
    rows = [re.findall(r"<br>\w+ (\d\d)-", row) for row in page.split("<tr>")[1:]]
    assert [len(row) for row in rows] == [7] * 8
    assert sum(kind == row[0] for row in rows for kind in row[1:]) > 0.7 * 48  # of eight kinds


def test_jokes(empty: Database, tmp_path: Path) -> None:
    found = run("jokes", empty, tmp_path)
    assert float(found["RMSE on held-out ratings"]) < 0.93 * float(found["RMSE of biases alone"])
    assert found["jokes left out, without a rating"] == "10"


@pytest.mark.parametrize("name", FOLDERS)
def test_a_readme_shows_what_was_measured(name: str) -> None:
    page = (FOLDERS[name] / "README.md").read_text()
    figures = json.loads((FOLDERS[name] / "figures.json").read_text())
    assert workspace.START + workspace.figures_table(figures) + workspace.END in page
    assert figures["lines"] == workspace.own_lines(FOLDERS[name] / "__main__.py")


def test_the_overview_shows_every_tutorial() -> None:
    page = (workspace.HERE / "README.md").read_text()
    assert workspace.START + workspace.overview() + workspace.END in page
    pictures = [workspace.HERE / picture for picture in PICTURE.findall(page)]
    assert {picture.parent for picture in pictures} == set(FOLDERS.values())
    for folder in FOLDERS.values():
        pictures += [folder / picture for picture in PICTURE.findall((folder / "README.md").read_text())]
    assert {picture.stat().st_size <= 60_000 for picture in pictures} == {True}


@pytest.mark.campaign
@pytest.mark.skipif(VERSION != 18, reason="once: on a server of its own")
@pytest.mark.parametrize("name", FOLDERS)
def test_a_tutorial_runs_in_full_by_its_command(name: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECSTORE_")}
    command = [sys.executable, "-m", f"examples.{name}", "--output", str(tmp_path)]
    subprocess.run(command, cwd=workspace.HERE.parent, env=environment, check=True)
    assert json.loads((tmp_path / "figures.json").read_text())["lines"]
