"""The pages are found from the index, the README stays short, and the picture shows what runs."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def links(page: Path) -> set[Path]:
    return {(page.parent / link).resolve() for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())}


def test_every_page_is_linked_from_the_index() -> None:
    missing = (
        {page.resolve() for page in DOCS.glob("*.md")} - links(DOCS / "index.md") - {(DOCS / "index.md").resolve()}
    )
    assert not missing, f"docs/index.md does not link {sorted(page.name for page in missing)}"


def test_every_decision_is_linked_from_their_index() -> None:
    decisions = DOCS / "decisions"
    missing = {page.resolve() for page in decisions.glob("0*.md")} - links(decisions / "README.md")
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
