"""Generate views of a learning platform in the form of the original's file, and a catalogue of the resources."""

import csv
import gzip
import random as plain_random
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

from examples import planted

SUBJECTS = {
    "Biology": ("Cells", "Photosynthesis", "Genetics", "Evolution", "Ecosystems", "The human body"),
    "History": ("Ancient Rome", "The Middle Ages", "The French Revolution", "Industrialization", "The Cold War"),
    "Mathematics": ("Fractions", "Linear equations", "Geometry", "Probability", "Functions", "Calculus"),
    "Physics": ("Forces", "Energy", "Electricity", "Optics", "Waves", "Thermodynamics"),
    "Literature": ("Poetry", "Drama", "The novel", "Rhetoric", "Fairy tales"),
    "Geography": ("Climate", "Plate tectonics", "Rivers", "Cities", "Maps"),
    "Chemistry": ("Atoms", "Acids and bases", "Reactions", "The periodic table", "Organic chemistry"),
    "Music": ("Rhythm", "Harmony", "Instruments", "Composers"),
    "Art": ("Perspective", "Colour", "Impressionism", "Photography"),
    "Civics": ("Elections", "The constitution", "Human rights", "The United Nations"),
}
TOPICS = [(subject, topic) for subject, topics in SUBJECTS.items() for topic in topics]
FORMS = ("worksheet", "video", "quiz", "slides", "experiment", "lesson plan", "game", "reading")


def write(views: Path, resources: Path, small: bool) -> None:
    """Write `user_id,resource_id,view_count` and `resource_id,language,title,subject,topic,tags`, gzipped.

    One pair in fifty comes as two rows. A twentieth of the second language's users also use the first.
    """
    sizes = {"en": (700, 200, 9_000), "es": (300, 90, 4_000)} if small else {
        "en": (75_000, 6_300, 600_000), "es": (22_000, 2_500, 170_000),
    }  # fmt: skip
    random, topics = np.random.default_rng(10), TOPICS[:9] if small else TOPICS
    ids = plain_random.Random(10)
    users = [str(UUID(int=ids.getrandbits(128), version=4)) for _ in range(sum(size[0] for size in sizes.values()))]
    found: list[tuple[str, int, int]] = []
    catalogue: list[tuple[Any, ...]] = []
    first_user = 0
    for language, (of_users, of_items, of_pairs) in sizes.items():
        likes = planted.pairs(of_users, of_items, of_pairs, len(topics), seed=len(catalogue), noise=0.1, steepness=0.6)
        counts = random.geometric(np.where(likes.liked, 0.3, 0.7))
        owners = np.where(np.arange(of_users) % 20 == 1, np.arange(of_users) // 2, first_user + np.arange(of_users))
        for user, item, count in zip(owners[likes.users], likes.items, counts, strict=True):
            found.append((users[user], len(catalogue) + 1 + int(item), int(count)))
        for n, topic in enumerate(likes.clusters):
            subject, name = TOPICS[topic]
            form = FORMS[n % len(FORMS)]
            tags = f"{form}|grade {5 + n % 8}"
            catalogue.append(
                (len(catalogue) + 1, language, f"{name}: {form} {n // len(FORMS) + 1}", subject, name, tags)
            )
        first_user += of_users
    split = [(user, item, count // 2) for user, item, count in found[::50] if count > 1]
    _write(views, ("user_id", "resource_id", "view_count"), [*found, *split])
    _write(resources, ("resource_id", "language", "title", "subject", "topic", "tags"), catalogue)


def _write(file: Path, header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    with gzip.open(file, "wt", compresslevel=4, newline="") as out:
        csv.writer(out).writerows([header, *rows])
