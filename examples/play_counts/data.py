"""Generate play counts of artists in the form of the original's file."""

import hashlib
from pathlib import Path

import numpy as np

from examples import planted

STYLES = ("Folk", "Techno", "Jazz", "Metal", "Soul", "Blues", "Punk", "Ambient", "Opera", "Samba", "Reggae", "Tango", "Rap",
          "Disco", "Gospel", "Swing")  # fmt: skip
PLACES = ("Northern", "Southern", "Coastal", "Alpine", "Urban")
BANDS = ("Foxes", "Lanterns", "Rivers", "Kites", "Owls", "Comets", "Harbours", "Sparrows", "Mirrors", "Giants")


def write(file: Path, small: bool) -> None:
    """Write lines of user, MusicBrainz id, artist and plays, separated by tabs, without a header; a few fields are empty."""
    users, artists, count, styles = (400, 300, 6_000, 8) if small else (2_100, 22_000, 100_000, 80)
    plays = planted.pairs(users, artists, count, styles, seed=30)
    random = np.random.default_rng(31)
    times = np.ceil(random.lognormal(np.where(plays.liked, 4.6, 2.6), 1.2)).astype(int)
    missing = random.random(count)
    people = [hashlib.sha1(b"user %d" % n).hexdigest() for n in range(users)]
    names = [f"{PLACES[s % 5]} {STYLES[s // 5]} {BANDS[n % 10]} {n}" for n, s in enumerate(plays.clusters)]
    lines = []
    for user, item, played, empty in zip(plays.users, plays.items, times, missing, strict=True):
        mbid = hashlib.md5(b"artist %d" % item).hexdigest() if empty > 0.02 else ""
        artist = names[item] if empty > 0.001 else ""
        lines.append(f"{people[user]}\t{mbid}\t{artist}\t{played if empty < 0.9995 else ''}\n")
    file.write_text("".join(lines))
