"""Generate ratings of jokes in the form of the original's two files."""

from pathlib import Path

import numpy as np

UNRATED, JOKES = 10, 150
KINDS = ("doctor", "lawyer", "programmer", "chicken", "bar", "parrot")
ENDS = ("walks in.", "sends the bill.", "never came back.", "was the wrong one.", "asked for a ladder.")


def write(ratings: Path, texts: Path, small: bool) -> None:
    """Write lines of user, joke and rating between pairs of tabs, and the jokes as HTML.

    A rating is made of the joke's quality, the user's mood, six tastes and noise. Ten jokes have no rating, eight are
    rated by nearly everybody.
    """
    users, mean_count = (1_500, 28) if small else (59_000, 30)
    random = np.random.default_rng(150)
    kind = random.integers(0, len(KINDS), JOKES)
    tastes = np.eye(len(KINDS))[kind] + 0.3 * random.normal(size=(JOKES, len(KINDS)))
    quality, rated = 1.6 * random.normal(size=JOKES), np.arange(UNRATED, JOKES)
    lines = []
    for user in range(1, users + 1):
        often = rated[:8][random.random(8) < 0.95]
        others = random.choice(rated[8:], min(len(rated) - 8, int(random.exponential(mean_count - 8))), replace=False)
        shown = np.concatenate((often, others))
        liking = 2.2 * random.normal(size=len(KINDS))
        score = (
            1.6 + 2.4 * random.normal() + quality[shown] + tastes[shown] @ liking + 2.8 * random.normal(size=len(shown))
        )
        for joke, value in zip(shown + 1, np.clip(score, -10, 10), strict=True):
            lines.append(f"{user}\t\t{joke}\t\t{value:.3f}\n")
    ratings.write_text("".join(lines))
    pages = [
        f"{n + 1}:\n<p>\nThe {KINDS[k]} of joke {n + 1}<br />\n{ENDS[n % len(ENDS)]}\n</p>\n\n"
        for n, k in enumerate(kind)
    ]
    texts.write_text("".join(pages))
