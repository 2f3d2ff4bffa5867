"""Publish a file's generation as a recommender's next one, by the steps of a retrain.

The file is read and looked at first, without a database. The live generation serves until the flip, and after any error.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa

from recstore import pipeline, registry
from recstore.config import Settings
from recstore.definition import Definition
from recstore.errors import (
    FileRefused,
    ImportRefused,
    NoRoom,
    NothingToImportInto,
    RecommenderNotFound,
    RecstoreError,
    SourceEmpty,
)
from recstore.files.archive.against_live import as_stored, check_fold_in, comparable, fallen, guard, judge
from recstore.files.archive.reading import Exported, fit, read
from recstore.model.interactions import IdMap, Interactions
from recstore.operations import jobs
from recstore.postgres.connection import Connection, connect, one_line, plain_errors
from recstore.publication import admission, building, generations
from recstore.runs import Reporter, Run, Silent, Summary, job, take_lock
from recstore.source.inspection import SourceShape
from recstore.sql.objects import Registered
from recstore.sql.schema_revision import require_current


@dataclass(frozen=True)
class Plan:
    """The effects of an import; `fallen` names what the file has far less of than the live generation."""

    file: str
    recommender: str
    from_recommender: str
    from_generation: int
    exported_at: str
    users: int
    items: int
    factors: int
    conversions: tuple[str, ...]
    creates: bool
    settings: dict[str, dict[str, Any]]
    """Settings by section, with the file's SQL, of the recommender that would be created; defaults left out."""
    live_generation: int | None
    fallen: str | None


def look(url: str, name: str, path: Path, *, create: bool = False) -> Plan:
    """Read and check the file, and the recommender it would be published into; change nothing.

    Raises as `import_generation` does, except for what only the publication finds out.
    """
    with _fitted(url, name, path, create=create) as (connection, recommender, fitted, conversions):
        about = fitted.about
        live = generations.live(connection, recommender) if recommender else None
        return Plan(
            file=str(path),
            recommender=name,
            from_recommender=about.recommender,
            from_generation=about.generation,
            exported_at=about.exported_at.isoformat(),
            users=len(fitted.users),
            items=len(fitted.items),
            factors=about.factors,
            conversions=tuple(conversions),
            creates=recommender is None,
            settings=about.definition.model_dump(mode="json", exclude_defaults=True) if recommender is None else {},
            live_generation=live.number if live else None,
            fallen=fallen(connection, recommender, fitted, live) if recommender and live else None,
        )


def import_generation(
    url: str,
    settings: Settings,
    name: str,
    path: Path,
    *,
    create: bool = False,
    force: bool = False,
    reporter: Reporter | None = None,
) -> jobs.Outcome:
    """Publish the file at `path` as the next generation of recommender `name`.

    With `create`, a missing recommender is created as the file says, and dropped again if the import fails. It stays, with
    a warning, if its generation went live before the error or another run is at work on it. With `force`, publish even a
    model that is far smaller or worse. Raises FileRefused, IdsDoNotConvert, NoRoom, NothingToImportInto, ImportShrunk,
    ImportRefused and the errors of a retrain.
    """
    with _fitted(url, name, path, create=create) as (connection, recommender, fitted, _):
        if recommender is None:
            _create(connection, settings, name, fitted)
    try:
        return import_(url, settings, name, reporter=reporter, fitted=fitted, force=force)
    except BaseException:
        if recommender is None:
            _take_back(url, settings, name, reporter or Silent())
        raise


@contextmanager
def _fitted(
    url: str, name: str, path: Path, *, create: bool
) -> Iterator[tuple[Connection, Registered | None, Exported, list[str]]]:
    """Fit the file to the recommender, or to the one that `create` would make; name the conversions of its ids."""
    exported = read(path)
    with closing(connect(url)) as connection, plain_errors(f"importing into {name!r}", connection):
        require_current(connection)
        recommender, definition = None, exported.about.definition
        with suppress(RecommenderNotFound):
            recommender = registry.get(connection, name)
        if recommender is not None:
            typed: Registered | SourceShape = recommender
            _check_room(recommender, path, exported.about.factors)
            _check_feedback(recommender, exported)
        elif create:
            registry.check_name(connection, name)
            typed, _ = registry.inspect(connection, definition)
            registry.check_names(connection, definition)
        else:
            raise NothingToImportInto(name=name, source=definition.source.table or "the file's query")
        fitted = fit(exported, name, typed.user_type, typed.item_type)
        check_fold_in(fitted)
        yield connection, recommender, fitted, fitted.conversions(typed.user_type, typed.item_type)


def _check_room(recommender: Registered, path: Path, factors: int) -> None:
    if factors > recommender.dimensions:
        raise NoRoom(path=path, name=recommender.name, factors=factors, dimensions=recommender.dimensions)


def _check_feedback(recommender: Registered, exported: Exported) -> None:
    """Raise FileRefused if one has ratings and the other has not."""
    if exported.about.rated != recommender.definition.source.explicit:
        kinds = ("explicit", "implicit") if exported.about.rated else ("implicit", "explicit")
        reason = f"its feedback is {kinds[0]}, that of {recommender.name!r} is {kinds[1]}"
        raise FileRefused(path=exported.path, reason=reason)


def _create(connection: Connection, settings: Settings, name: str, fitted: Exported) -> None:
    """Create the recommender and its first, empty generation, or nothing."""
    recommender = registry.create(connection, name, _definition(fitted))
    try:
        generations.attach(connection, settings, recommender)
    except BaseException:
        with suppress(RecstoreError, psycopg.Error):
            registry.drop(connection, settings, recommender)
        raise


def _definition(fitted: Exported) -> Definition:
    """Return the file's definition with room for its factors: it may come from a recommender that was resized."""
    definition = fitted.about.definition
    dimensions = definition.storage.dimensions or registry.storage_for(definition)[1]
    if dimensions >= fitted.about.factors:
        return definition
    storage = definition.storage.model_copy(update={"dimensions": fitted.about.factors})
    return definition.model_copy(update={"storage": storage})


def _take_back(url: str, settings: Settings, name: str, reporter: Reporter) -> None:
    """Drop the recommender of a failed import, unless a generation of it is live; warn if it stays."""
    try:
        with closing(connect(url)) as connection:
            made = registry.get(connection, name)
            take_lock(connection, made)  # nothing flips between the look and the drop
            live = generations.live(connection, made)
            if live is None:
                jobs.drop(connection, settings, made)
                return
        reason = f"its {live} is live."
    except RecommenderNotFound:
        return
    except RecstoreError as error:
        reason = error.message
    except psycopg.Error as error:
        reason = f"{one_line(error)}."
    reporter.warn(f"The recommender {name!r}, made for this import, stays: {reason} To remove it: recstore drop {name}")


@job()
def import_(run: Run, *, fitted: Exported, force: bool) -> jobs.Outcome:
    """Publish a file's model by the stages of a retrain."""
    recommender, about = run.recommender, fitted.about
    _check_room(recommender, fitted.path, about.factors)
    origin = run.stage("file", _origin, fitted, recommender)
    guard(run, fitted, force)
    if not fitted.has_users:
        run.warn(
            "The file has no users: until the next retrain recommend() folds each user in from the current interactions."
        )
    run.stage("prepare", jobs.prepare, run)
    held_out = fitted.held_out(recommender.user_type, recommender.item_type, recommender.held_out_key)
    new, live = as_stored(fitted, run.generation.number, held_out), None
    if recommender.definition.gate.held_out:
        live = run.stage("hold out", comparable, run, new).live
    pulled = _pulled(run) if live or recommender.definition.source.seen == "published" else None
    if new and live and pulled:
        verdict = run.stage("gate", judge, run, new, live, pulled)
        admission.check_verdict(run, verdict, live, force, ImportRefused, path=fitted.path)
    content = building.Content(
        population=building.Population(fitted.users, fitted.items, fitted.item_users, fitted.item_views),
        pulled=pulled,
        items=fitted.item_vectors(recommender.dimensions),
        users=fitted.user_vectors(recommender.dimensions),
        factors=about.factors,
        snapshot=_snapshot(fitted) | {"imported": origin.figures},
        filters=about.filters,
        confidence=about.confidence,
        training={key: value for key, value in about.training.items() if key != "item_weights"}
        | about.weights.stored(),
        fold_in=about.fold_in,
        for_queries=fitted.for_queries(new) if new else None,
        held_out=held_out,
        metrics=about.metrics and about.metrics | {"live": None, "unknown": "it is from a file"},
        definition=_trained_by(recommender.definition, about.definition),
        trained_users=about.users,
        mean_preference=fitted.mean(recommender.dimensions),
        refreshed_users=fitted.user_refreshed,
        refreshed_items=fitted.item_refreshed,
    )
    return pipeline.publish(run, content, release=force)


def _origin(fitted: Exported, recommender: Registered) -> Summary:
    """Describe the file that a generation is imported from."""
    about = fitted.about
    words = f"generation {about.generation} of {about.recommender!r}: {len(fitted.items):,} items,"
    words += f" {len(fitted.users):,} users, {about.factors} factors"
    figures = {
        "file": fitted.path.name,
        "recommender": about.recommender,
        "generation": about.generation,
        "exported_at": about.exported_at.isoformat(),
        "users": about.users,
        "items": about.items,
        "user_type": about.user_type.value,
        "item_type": about.item_type.value,
    }
    return Summary("; ".join([words, *fitted.conversions(recommender.user_type, recommender.item_type)]), figures)


def _snapshot(fitted: Exported) -> dict[str, Any]:
    """Return the source's figures, with the counts that the next training's guard compares with."""
    counts = {"users": fitted.about.users, "items": len(fitted.items), "pairs": int(fitted.item_users.sum())}
    said = {name: value for name, value in fitted.about.snapshot.items() if name != "refreshed"}
    if fitted.item_refreshed.any() or fitted.user_refreshed.any():
        said["refreshed"] = {"users": int(fitted.user_refreshed.sum()), "items": int(fitted.item_refreshed.sum())}
    return said | {name: said[name] if isinstance(said.get(name), int) else value for name, value in counts.items()}


def _trained_by(own: Definition, file: Definition) -> Definition:
    """Return the recommender's definition, trained as the file was; the next training is compared with its source."""
    parts = ("filters", "confidence", "hyperparameters")
    return own.model_copy(update={part: getattr(file, part) for part in parts})


def _pulled(run: Run) -> Interactions:
    """Return the source's pairs, none if it has no usable rows yet."""
    try:
        return run.stage("read", pipeline.read_source, run).interactions
    except SourceEmpty:
        recommender = run.recommender
        users, items = (IdMap(pa.array([], kind.arrow)) for kind in (recommender.user_type, recommender.item_type))
        none = np.zeros(0, dtype=np.int32)
        return Interactions(users, items, none, none, np.zeros(0))
