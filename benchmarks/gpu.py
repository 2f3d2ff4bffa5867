"""Compare training on the GPU with the CPU: time, memory, and whether the results agree. Prints tables for docs/gpu.md.

Both devices start from the same factors, drawn from the seed, and leave out the same tenth of the pairs. Without a usable
GPU it says why and exits 2; --cpu-only shows the CPU's column alone.
"""

import argparse
import sys
import time
from importlib import resources

import numpy as np
import pyarrow as pa
import pyarrow.csv
from scipy import sparse

from recstore.definition import Confidence, Hyperparameters
from recstore.errors import RecstoreError
from recstore.model import confidence
from recstore.model.interactions import Interactions, InteractionsBuilder
from recstore.model.trainers import Factors, als, cuda
from recstore.types import IdType

BLOCK = 256
"""Users whose scores of all items are held at once."""


def demo() -> Interactions:
    with resources.files("recstore.demo").joinpath("data/online_retail_2010.views.csv.gz").open("rb") as file:
        return built(pyarrow.csv.read_csv(pa.CompressedInputStream(file, "gzip")))


def generated(users: int, items: int, pairs: int, seed: int) -> Interactions:
    """Generate views.

    An item's popularity falls with its rank r as r^(-2/3). A user has one of 100 tastes, and 7 in 10 draws are moved to
    the nearest item of that taste. Draws that meet add up to a value of 2 or more, so the pairs are somewhat fewer."""
    random = np.random.default_rng(seed)
    user = random.integers(0, users, pairs)
    item = (items * random.random(pairs) ** 3).astype(np.int64)
    moved = np.minimum(item // 100 * 100 + user % 100, items - 1)
    return built(pa.table([user, np.where(random.random(pairs) < 0.7, moved, item), np.ones(pairs)], list("uiv")))


def built(table: pa.Table) -> Interactions:
    builder = InteractionsBuilder(IdType.BIGINT, IdType.BIGINT, "sum", 0.0, "benchmark")
    for batch in table.rename_columns(["user_id", "item_id", "value"]).to_batches():
        builder.add(batch)
    return builder.build()[0]


def train(device: str, matrix: sparse.csr_matrix, given: Hyperparameters, factors: int) -> tuple[Factors, float, int]:
    """Return the factors, the median seconds of an iteration, and the most GPU memory seen in use."""
    seconds, used = [], []
    free = cuda.memory()[0] if device == "gpu" else 0

    def on_iteration(_number: int, took: float, _loss: float | None) -> None:
        seconds.append(took)
        used.append(free - cuda.memory()[0] if device == "gpu" else 0)

    began = time.perf_counter()
    trained = als.ALS().train(matrix, given, factors=factors, device=device, on_iteration=on_iteration)
    print(f"{device}: trained in {time.perf_counter() - began:.1f} s", *trained.warnings, file=sys.stderr)
    return trained, float(np.median(seconds)), max(used)


def loss(matrix: sparse.csr_matrix, trained: Factors) -> float:
    """Return the loss over all pairs: sum c (p - x . y)^2 + regularization (|X|^2 + |Y|^2), in double precision."""
    x, y = trained.user_factors.astype(np.float64), trained.item_factors.astype(np.float64)
    total = np.sum((x.T @ x) * (y.T @ y)) + trained.regularization * (np.sum(x * x) + np.sum(y * y))
    for start in range(0, len(x), BLOCK):
        block = matrix[start : start + BLOCK].tocoo()
        score = np.einsum("ij,ij->i", x[start + block.row], y[block.col])
        total += np.sum(block.data * (1 - score) ** 2 - score**2)
    return float(total)


def compare(name: str, interactions: Interactions, devices: list[str], options: argparse.Namespace) -> None:
    random = np.random.default_rng(options.seed)
    held_out = random.random(len(interactions)) < 0.1
    kept = interactions.subset(~held_out)
    given = Hyperparameters(regularization=options.regularization, iterations=options.iterations, seed=options.seed)
    matrix = confidence.fit(kept, Confidence()).matrix(kept, given.alpha)
    users = kept.users.lookup(interactions.users.ids)[interactions.user_index[held_out]]
    items = kept.items.lookup(interactions.items.ids)[interactions.item_index[held_out]]
    known = (users >= 0) & (items >= 0)
    wanted = sparse.csr_matrix((np.ones(known.sum(), bool), (users[known], items[known])), shape=matrix.shape)
    asked = np.unique(users[known])
    asked = np.sort(random.choice(asked, min(options.sample, len(asked)), replace=False))

    runs = [train(device, matrix, given, options.factors) for device in devices]
    exact = [als.ALS().solve_users(matrix[asked], run[0].fold_in) for run in runs]
    recall, overlap, mean, largest = [[] for _ in runs], [], [], 0.0
    for start in range(0, len(asked), BLOCK):
        rows = asked[start : start + BLOCK]
        seen, good = matrix[rows].toarray() > 0, wanted[rows].toarray()
        scores = [x[start : start + BLOCK] @ run[0].item_factors.T for x, run in zip(exact, runs, strict=True)]
        lists = [np.argsort(-np.where(seen, -np.inf, score), axis=1, kind="stable")[:, :20] for score in scores]
        for of_run, found in zip(recall, lists, strict=True):
            of_run.extend(np.take_along_axis(good, found, axis=1).sum(axis=1) / good.sum(axis=1))
        overlap.extend(len(np.intersect1d(a[:10], b[:10])) / 10 for a, b in zip(lists[0], lists[-1], strict=True))
        difference = np.abs(scores[0] - scores[-1])
        mean, largest = [*mean, *difference.mean(axis=1)], max(largest, float(difference.max()))

    cpu, gpu = runs[0], runs[-1]
    losses = [loss(matrix, run[0]) for run in runs]
    estimate = cuda.bytes_needed(*matrix.shape, matrix.nnz, cpu[0].item_factors.shape[1])
    table = [
        ["", "CPU", "GPU", ""],
        ["---", "---", "---", "---"],
        ["seconds per iteration", f"{cpu[1]:.3f}", f"{gpu[1]:.3f}", f"{cpu[1] / gpu[1]:.1f} times as fast"],
        ["loss after the last", f"{losses[0]:.7g}", f"{losses[-1]:.7g}", f"{losses[-1] / losses[0] - 1:+.1e}"],
        ["recall@20", f"{np.mean(recall[0]):.4f}", f"{np.mean(recall[-1]):.4f}", ""],
        ["GPU memory, MB", "", f"{gpu[2] / 1e6:.0f}", f"{estimate / 1e6:.0f} estimated"],
        ["top-10 lists", "", "", f"{np.mean(overlap):.2%} of the items in common"],
        ["predicted scores", "", "", f"differ by {np.mean(mean):.1e} on average, {largest:.1e} at most"],
    ]
    size = (
        f"{matrix.shape[0]} users, {matrix.shape[1]} items, {matrix.nnz} pairs, {cpu[0].item_factors.shape[1]} factors"
    )
    print(f"\n{name}: {size}\n")
    for row in table if len(runs) == 2 else [row[:2] for row in table[:5]]:
        print("|", " | ".join(row), "|")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-only", action="store_true")
    parser.add_argument("--data", choices=["demo", "generated", "both"], default="both")
    for option, default in (("users", 200_000), ("items", 50_000), ("pairs", 10_000_000), ("factors", 128),
                            ("iterations", 15), ("seed", 42), ("sample", 2000)):  # fmt: skip
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--regularization", type=float, default=100.0)
    options = parser.parse_args()
    problem = None if options.cpu_only else als.gpu_problem(options.factors)
    if problem:
        print(f"The GPU cannot be measured: {problem}. The CPU alone: --cpu-only", file=sys.stderr)
        return 2
    devices = ["cpu"] if options.cpu_only else ["cpu", "gpu"]
    try:
        if options.data != "generated":
            compare("Online Retail", demo(), devices, options)
        if options.data != "demo":
            made = generated(options.users, options.items, options.pairs, options.seed)
            compare("Generated", made, devices, options)
    except RecstoreError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
