"""Measure lists on public splits through SQL: by default settings, and by those that a search of `--time` seconds finds on a
validation part of the training pairs.

    python benchmarks/quality.py DIRECTORY [--only movielens-1m] [--time 3600]

DIRECTORY has a folder for each split, named as below. The files are not shipped; what is missing is named with its source.
"""

import argparse
import hashlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measured import Measured
from published import database
from scipy import sparse
from tuning import Lines

from recstore.config import Settings
from recstore.definition import Confidence, Definition, Source
from recstore.experiments.benchmark import Files, benchmark
from recstore.experiments.measurement import Measurement
from recstore.experiments.tuning.search_options import Options


@dataclass(frozen=True)
class PublicSplit:
    """A split: its source, the SHA-256 of its files, the levels of recall@20 and NDCG@20, and the best published figures."""

    source: str
    files: dict[str, str]
    levels: tuple[float, float]
    published: str


SPLITS = {
    "gowalla": PublicSplit(
        "github.com/gusye1234/LightGCN-PyTorch, data/gowalla",
        {
            "s_adj_mat.npz": "6ab3ab7aa1278da3717054c60258d88d2d2d78914fa62db2b13da9321e397cab",
            "test.txt": "099a2a73924e4b754dc6efd730d764f492321b53c38eb93298850c83acf57be3",
        },
        (0.192, 0.160),
        "0.194 / 0.162 (ChebyCF, SIGIR 2025)",
    ),
    "movielens-1m": PublicSplit(
        "github.com/xue-pai/UltraGCN, data/ml-1m",
        {
            "train.txt": "f088986b22f14f17136f9c4ef6f1269201f83dfb9ce259f1fd4ed46d72a92599",
            "test.txt": "7ca364f7f9321417b521745833b12719a2feb13253bccece2c04d5afe9fc3e15",
        },
        (0.287, 0.274),
        "0.281 / 0.268",
    ),
    "amazon-cds": PublicSplit(
        "github.com/xue-pai/UltraGCN, data/amazoncds",
        {
            "train.txt": "dffb4e0cb45813f752ebe4c201a6c35aeb2755289b39b89bc1c148df8afcbd0c",
            "test.txt": "5ad687ad2d00d7b3da4b366736aa606a63b3df5a53502ffc860f40990d7d6c36",
        },
        (0.192, 0.128),
        "0.176 / 0.115 (SimpleX, CIKM 2021)",
    ),
}

METRICS = ("recall@20", "ndcg@20")


def checked(folder: Path, split: PublicSplit) -> None:
    """Exit with a sentence for a file that is missing or another one."""
    for name, digest in split.files.items():
        path = folder / name
        if not path.is_file():
            sys.exit(f"{path} is missing. It comes from {split.source}.")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            sys.exit(f"{path} is another file than that of {split.source}: its SHA-256 is not {digest}.")


def training_file(folder: Path, into: Path) -> Path:
    """Return the training part's file; Gowalla's is written from its matrix, the block of users by items."""
    if (folder / "train.txt").is_file() and (folder / "train.txt").stat().st_size:
        return folder / "train.txt"
    whole = sparse.csr_matrix(sparse.load_npz(folder / "s_adj_mat.npz"))
    users = len((folder / "test.txt").read_text().splitlines())
    pairs = whole[:users, users:].sorted_indices()
    rows = np.split(pairs.indices, pairs.indptr[1:-1])
    into.write_text("".join(f"{user} {' '.join(map(str, items))}\n" for user, items in enumerate(rows)))
    return into


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument(
        "--only", action="append", choices=SPLITS, help="one of the splits; may be repeated; no defaults"
    )
    parser.add_argument("--time", type=float, default=3600.0, help="seconds of each search; 0: the defaults alone")
    parser.add_argument(
        "--trainer", action="append", default=[], help="of the search, as of recstore tune; may be repeated"
    )
    arguments = parser.parse_args()
    chosen = {name: SPLITS[name] for name in arguments.only or SPLITS}
    for name, split in chosen.items():
        checked(arguments.directory / name, split)
    source, wanted = Source(table="none"), Measurement(ks=(20,), through_sql=True)
    with database() as (_, server, url), tempfile.TemporaryDirectory() as scratch:
        settings = Settings(database_url=url, home=server.home)
        data = {
            name: Files(
                training_file(arguments.directory / name, Path(scratch) / f"{name}.txt"),
                arguments.directory / name / "test.txt",
            )
            for name in chosen
        }

        def measure(
            part: Measured, split: str, how: str, definition: Definition, tune: Options | None = None
        ) -> dict[str, float | None]:
            """Add rows; return the metrics of the lists through SQL. Keep the words of a search."""
            found = benchmark(url, settings, data[split], definition, wanted, tune=tune, watch=Lines())
            for result in found.evaluation.results:
                if how == "default settings" or "through SQL" in result.name:
                    shown = {metric: result.metrics[metric] for metric in METRICS}
                    part.row("lists", split=split, settings=how, model=result.name, **shown, seconds=result.seconds)
            if tune is not None:
                told = next(step["told"] for step in found.steps if step["step"] == "tune")
                part.profile(split, f"The search chose: {told}. Best published: {chosen[split].published}.")
            return next(result.metrics for result in found.evaluation.results if "through SQL" in result.name)

        if not arguments.only:
            part = Measured("quality_defaults")
            for name in chosen:
                by_default = measure(part, name, "default settings", Definition(source=source))
                before = Definition(source=source, confidence=Confidence(function="bm25"))
                ratio = (by_default["ndcg@20"] or 0) / (measure(part, name, "confidence bm25", before)["ndcg@20"] or 1)
                part.level("defaults", f"{name}: NDCG@20 at least that with bm25", 1.0, ratio, "times", least=True)
            part.write()
        for name, split in chosen.items() if arguments.time else ():
            part = Measured(f"quality_{name}", search_seconds=arguments.time, trainers=" ".join(arguments.trainer))
            options = Options(seconds=arguments.time, trials=1000, trainers=arguments.trainer)
            published = measure(part, name, "search", Definition(source=source), options)
            for metric, level in zip(METRICS, split.levels, strict=True):
                part.level(name, f"{metric} at least {level}", level, published[metric] or 0.0, "", least=True)
            part.write()


if __name__ == "__main__":
    main()
