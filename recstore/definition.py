"""The definition of a recommender: source, filters, hyperparameters, publication. Its TOML file and its row have this form.

Pure data with its own checks; knows no database. Every field is an option of `recstore create` and `alter`.
"""

import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from recstore import schedule

MAX_FACTORS = 1984
"""Dimensions at which two `halfvec` still fit on one 8 kB page, so that no row is stored out of line."""

DEFAULT_FACTORS = 256
"""Number of factors where none is set and there are more items than that."""

DEFAULT_RATING_FACTORS = 62
"""The same for explicit feedback: with the biases 64 dimensions."""

RATINGS = "ratings"
"""The trainer of explicit feedback."""

MAX_VECTOR_DIMENSIONS = 960
"""Dimensions at which two single-precision `vector` still fit on one 8 kB page."""

Duplicates = Literal["sum", "max", "last", "mean"]
Negative = Literal["drop", "net", "dislike"]
ConfidenceFunction = Literal["linear", "log", "binary", "share", "bm25", "power"]
Search = Literal["auto", "exact", "hnsw"]
Step = Literal["fold_in", "popular", "trending", "query"]

UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
"""Units of a period of time, in seconds."""


def seconds(period: str) -> float:
    """Return the seconds of a period such as "30 days". Raises ValueError with a message for the user."""
    found = re.fullmatch(rf"(\d+(?:\.\d+)?) *({'|'.join(UNITS)})s?", period.strip().lower())
    length = float(found[1]) * UNITS[found[2]] if found else 0.0
    if not 1 <= length <= 1e10:
        raise ValueError('write a number and a unit (seconds, minutes, hours, days, weeks), for example "30 days"')
    return length


def _period(text: str) -> str:
    seconds(text)
    return " ".join(text.split())


Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Cron = Annotated[str, AfterValidator(schedule.checked_cron)]
Timezone = Annotated[str, AfterValidator(schedule.checked_timezone)]
Period = Annotated[str, AfterValidator(_period)]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(Part):
    """Interactions: either `query`, or `table` with its column names."""

    feedback: Literal["implicit", "explicit"] = Field(
        "implicit",
        description="Meaning of a value: implicit, how much was viewed; explicit, a rating, 0 and less included",
    )
    query: str | None = Field(None, description="SELECT that returns user_id, item_id, value and, optionally, last_at")
    table: str | None = Field(None, description="Table or view of interactions, as schema.table")
    user: str = Field("user_id", description="Column of user ids in the table")
    item: str = Field("item_id", description="Column of item ids in the table")
    value: str | None = Field(None, description="Column of values in the table; unset: each row counts 1")
    last_at: str | None = Field(None, description="Column with the time of the last interaction")
    duplicates: Duplicates = Field(
        "sum", description="How to combine several rows of one (user, item) pair; unset for ratings: mean"
    )
    negative: Negative = Field(
        "drop",
        description="Rows with a value of 0 or less: drop them, net them with the pair's other rows (returns), or take values"
        " below 0 for dislikes",
    )
    max_nulls: float = Field(0.01, ge=0, le=1, description="Maximum share of rows with NULL or NaN")
    seen: Literal["live", "published"] = Field(
        "live",
        description="Seen items that recommend() excludes: those of the live source, or a table of each generation",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_rating_of_a_pair(cls, given: Any) -> Any:
        rated = isinstance(given, dict) and given.get("feedback") == "explicit"
        return {"duplicates": "mean"} | given if rated else given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.query is None) == (self.table is None):
            raise ValueError("give either a query or a table")
        if self.explicit and self.duplicates not in ("mean", "last"):
            raise ValueError(
                "several ratings of a pair are combined by their mean or the last: set duplicates to one of these"
            )
        if self.explicit and self.table is not None and self.value is None:
            raise ValueError("explicit feedback requires the column of ratings: name it as the value")
        return self

    @property
    def explicit(self) -> bool:
        """True if values are ratings."""
        return self.feedback == "explicit"

    @property
    def rows(self) -> tuple[str | None, ...]:
        """The settings that decide which rows it has, and what their values mean."""
        return self.query, self.table, self.user, self.item, self.value, self.feedback

    @property
    def positive(self) -> bool:
        """True if only rows with a value above 0 count for popularity."""
        return not self.explicit and self.negative != "net"


class Candidates(Part):
    """Items that may be recommended now, read live by every function that returns items: either `query`, or `table` with a
    condition. Without both, every item is a candidate."""

    query: str | None = Field(None, description="SELECT that returns the ids of items to recommend now; unset: all")
    table: str | None = Field(None, description="Table or view of candidates, as schema.table")
    column: str | None = Field(None, description="Column of item ids in that table; unset: as in the source")
    condition: str | None = Field(None, description="Condition on its rows, for example visible AND stock > 0")

    @property
    def given(self) -> bool:
        """True if not every item is a candidate."""
        return self.query is not None or self.table is not None

    @model_validator(mode="after")
    def _one_of_query_and_table(self) -> Self:
        if self.query is not None and self.table is not None:
            raise ValueError("give candidates as a query or as a table, not both")
        if self.table is None and (self.column is not None or self.condition is not None):
            raise ValueError("a column or a condition of candidates requires their table")
        return self


class Fallback(Part):
    """Items for a user whom the training does not know, and for the end of a list that is shorter than k: the steps that
    recommend() goes through."""

    steps: tuple[Step, ...] | None = Field(
        None,
        description="Steps in their order, of fold_in, popular, trending and query; unset: fold_in,popular, or popular where"
        " seen items are published",
    )
    window: Period | None = Field(
        None,
        description="Time that the steps popular and trending count; unset: popular in the training snapshot, trending 7 days",
    )
    half_life: Period | None = Field(
        None, description="Time after which a user counts half in the step popular; unset: each counts 1"
    )
    query: str | None = Field(
        None, description="SELECT of the step query: item_id, score and, optionally, user_id; unset: none"
    )

    @field_validator("steps", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        steps = [step.strip() for step in value.split(",")] if isinstance(value, str) else value
        if isinstance(steps, list | tuple):
            known = get_args(Step)
            if wrong := [step for step in steps if step not in known]:
                raise ValueError(f"there is no step {wrong[0]!r}; there are {', '.join(known)}")
            if not steps or len(set(steps)) < len(steps):
                raise ValueError("name at least one step, and each at most once")
        return steps

    @model_validator(mode="after")
    def _settings_have_their_step(self) -> Self:
        steps = self.steps or ("popular",)
        if (self.query is not None) != ("query" in steps):
            raise ValueError("the step query and the query belong together: give both or neither")
        if self.window is not None and not {"popular", "trending"} & set(steps):
            raise ValueError("a window requires the step popular or trending")
        if self.half_life is not None and "popular" not in steps:
            raise ValueError("a half-life requires the step popular")
        return self

    @property
    def counts_times(self) -> bool:
        """True if a step counts the source by its times."""
        return self.window is not None or self.half_life is not None or "trending" in (self.steps or ())


class Exclusions(Part):
    """Items that recommend() leaves out for a user, read live: hidden, owned, blocked, not interested."""

    query: str | None = Field(
        None, description="SELECT that returns user_id and item_id of what not to recommend to whom; unset: nothing"
    )


class Filters(Part):
    """Bounds on the interactions to train on. Items are filtered first, then users; once or until nothing more is dropped."""

    min_item_views: NonNegative | None = Field(None, description="Minimum total views of an item")
    max_item_views: NonNegative | None = Field(None, description="Maximum total views of an item")
    min_users_per_item: Count | None = Field(None, description="Minimum distinct users of an item")
    min_user_views: NonNegative | None = Field(None, description="Minimum total views of a user")
    min_items_per_user: Count | None = Field(None, description="Minimum distinct items of a user")
    max_items_per_user: Count | None = Field(None, description="Maximum distinct items of a user")
    max_value: Positive | None = Field(None, description="Cap on the value of one pair")
    until_stable: bool = Field(False, description="Repeat the filters until nothing more is dropped")

    @model_validator(mode="after")
    def _least_below_most(self) -> Self:
        for least, most in (("min_item_views", "max_item_views"), ("min_items_per_user", "max_items_per_user")):
            low, high = getattr(self, least), getattr(self, most)
            if low is not None and high is not None and low > high:
                raise ValueError(f"{least} = {low:g} is above {most} = {high:g}, so nothing would be left")
        return self


class Confidence(Part):
    """The function w of c = 1 + alpha * w(r), with its constants (Hu, Koren and Volinsky 2008)."""

    function: ConfidenceFunction | None = Field(
        None,
        description="Confidence function w: linear, log, binary, share, bm25 or power; unset: power if nearly all values are"
        " equal, else bm25",
    )
    scale: Literal["mean", "none"] = Field("mean", description="Divide w by its mean, so that alpha is comparable")
    half_life: Period | None = Field(
        None,
        description="Time after which a value counts half, value * 2^(-age / half-life), by last_at; unset: values stay",
    )
    eps: Positive = Field(1.0, description="Log only: scale of the values, w = log(1 + r / eps)")
    k1: Positive = Field(
        100.0, description="BM25 and power: saturation; higher values let repeated views count for longer"
    )
    b: float = Field(
        0.8,
        ge=0,
        le=1,
        description="BM25 length normalization by the user's total views, 0 to 1",
    )
    activity_exponent: Annotated[float, Field(ge=0, le=1)] = Field(
        0.25, description="Power: how much less a view of a user with many items counts, as an exponent of their number"
    )
    rarity_exponent: Annotated[float, Field(ge=0, le=1)] = Field(
        0.4, description="Power: how much more a view of a rare item counts, as an exponent of its number of users"
    )


class Hyperparameters(Part):
    """Settings of training. Settings that name other trainers have no effect."""

    trainer: str = Field(
        "als",
        description="Trainer: als, spectral, hybrid, or one from an installed package; that of explicit feedback is ratings",
    )
    factors: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Number of factors; unset: min(256, items - 1)"
    )
    regularization: Annotated[float, Field(ge=0, le=1e9)] | None = Field(
        None, description="L2 regularization of the factors; unset: estimated from the data"
    )
    alpha: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        None, description="Weight of a view, c = 1 + alpha * w; unset: estimated from the density of the data"
    )
    iterations: Annotated[int, Field(ge=1, le=1000)] = Field(15, description="Iterations of alternating least squares")
    warm_iterations: Annotated[int, Field(ge=0, le=1000)] = Field(
        5, description="Iterations after a warm start from the live generation; 0: no warm starts"
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(42, description="Random seed of the initial factors")
    popularity_exponent: Annotated[float, Field(ge=-1, le=1)] = Field(
        0.0,
        description="Weight of an item in the lists, as an exponent of its number of users; spectral has item_exponent instead",
    )
    user_exponent: Annotated[float, Field(ge=0, le=1)] = Field(
        0.25, description="Spectral: how little a view of a user with many items counts, as an exponent of their number"
    )
    view_exponent: Annotated[float, Field(ge=0, le=1)] = Field(
        0.4, description="Spectral: how little a view of an item counts, as an exponent of its number of users"
    )
    item_exponent: Annotated[float, Field(ge=-1, le=2)] = Field(
        0.25, description="Spectral: weight of an item in the lists, as an exponent of its number of users"
    )
    ridge: Annotated[float, Field(ge=0, le=1e3)] = Field(
        0.03, description="Spectral: regularization, relative to the square of the largest singular value"
    )
    singular_exponent: Annotated[float, Field(ge=0, le=8)] = Field(
        0.0, description="Spectral: weight of a factor, as an exponent of its singular value"
    )
    spectral_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.25, description="Hybrid: share of spectral factors; the others come from als"
    )
    spectral_weight: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.35, description="Hybrid: weight of the spectral scores; the als scores have the rest"
    )
    options: dict[str, bool | int | float | str] = Field(
        {}, description="Settings of a trainer from an installed package"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, values: Any) -> Any:
        """Keep the model that complete settings without `ridge` meant, and leave out exponents that no trainer used."""
        exponents = {"item_exponent", "singular_exponent"}
        if not isinstance(values, dict) or "ridge" in values or not exponents | {"seed"} <= values.keys():
            return values
        if values.get("trainer") in ("spectral", "hybrid"):
            return values | {"user_exponent": 0.5, "view_exponent": 0.5, "ridge": 0.0}
        return {name: value for name, value in values.items() if name not in exponents}

    @property
    def list_exponent(self) -> float:
        """Exponent of the items' weights in the lists: 0 for ratings, and for spectral, which has its own."""
        return 0.0 if self.trainer in (RATINGS, "spectral") else self.popularity_exponent

    @property
    def explicit(self) -> bool:
        """True if the trainer is that of ratings."""
        return self.trainer == RATINGS

    @property
    def bias_factors(self) -> int:
        """Number of factors of a vector that are biases, besides the hyperparameter."""
        return 2 if self.explicit else 0


class Storage(Part):
    """Storage of the vectors in PostgreSQL. Fixed at creation; `recstore alter --resize` changes it."""

    vector_type: Literal["vector", "halfvec"] | None = Field(
        None, description="Type of the vectors; unset: vector up to 960 dimensions, then halfvec"
    )
    dimensions: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Dimensions of the vectors; unset: the factors, rounded up to a multiple of 64"
    )


class Publication(Part):
    """How a generation is indexed and how many are kept."""

    keep: Count = Field(2, description="Number of generations to keep, including the live one")
    search: Search = Field("auto", description="Vector search: calibrated per generation, always exact, or always HNSW")
    index_users: bool = Field(False, description="Build an HNSW index on users, for similar_users and users_for_item")
    ann_recall: float = Field(0.99, gt=0, le=1, description="Minimum ANN recall@10 that calibration accepts")


class Gate(Part):
    """Refusal of a new generation that is worse than the live one on held-out pairs, or whose source lost most of its
    rows."""

    held_out: float = Field(
        0.02, ge=0, le=0.2, description="Maximum share of pairs to hold out from training; 0: no gate"
    )
    tolerance: float = Field(
        0.05, ge=0, le=1, description="Maximum relative loss of NDCG@20 against the live generation"
    )
    max_fall: float = Field(0.5, ge=0, le=1, description="Maximum drop of users, items or pairs; 1: no limit")


class Schedule(Part):
    """Times at which the workers retrain."""

    cron: Cron | None = Field(
        None, description="When to retrain: minute hour day month weekday (of six fields, seconds first)"
    )
    timezone: Timezone = Field("UTC", description="Time zone of the schedule, for example Europe/Madrid")


class Refresh(Part):
    """Users with changed interactions, and new items, between two trainings."""

    fresh: bool = Field(
        False, description="Answer known users from their current rows too, unless a call says fresh => false"
    )
    cron: Cron | None = Field(
        None, description="When to refresh the live generation, as for the schedule; unset: on request"
    )


class Lists(Part):
    """Lists of all users and items. The workers replace their tables each time."""

    recommend_into: str | None = Field(None, description="Table for the recommendations of every user, as schema.table")
    similar_into: str | None = Field(None, description="Table for the similar items of every item, as schema.table")
    k: Annotated[int, Field(ge=1, le=10_000)] = Field(20, description="Length of each list")
    cron: Cron | None = Field(None, description="When to write the lists, as for the schedule; unset: on request")

    @field_validator("recommend_into", "similar_into")
    @classmethod
    def _table(cls, value: str | None) -> str | None:
        if value is not None and (
            not all(value.partition(".")) or "/" in value or value.lower().endswith((".csv", ".csv.gz", ".parquet"))
        ):
            raise ValueError("the workers write lists to tables: name one as schema.table")
        return value

    @model_validator(mode="after")
    def _times_need_a_table(self) -> Self:
        if self.recommend_into is not None and self.recommend_into == self.similar_into:
            raise ValueError("recommend_into and similar_into must be different tables")
        if self.cron is not None and self.recommend_into is None and self.similar_into is None:
            raise ValueError("times to write lists require a table: recommend_into, similar_into, or both")
        return self


class Titles(Part):
    """A lookup table of titles, shown in lists for people; `picture` is a column of pictures' URLs, for the explorer."""

    table: str
    item: str
    title: str
    picture: str | None = None


class Definition(Part):
    """The whole configuration of a recommender, as in its TOML file and its row."""

    source: Source
    candidates: Candidates = Candidates()
    exclusions: Exclusions = Exclusions()
    fallback: Fallback = Fallback()
    filters: Filters = Filters()
    confidence: Confidence = Confidence()
    hyperparameters: Hyperparameters = Hyperparameters()
    storage: Storage = Storage()
    publication: Publication = Publication()
    gate: Gate = Gate()
    schedule: Schedule = Schedule()
    refresh: Refresh = Refresh()
    lists: Lists = Lists()
    titles: Titles | None = None

    @model_validator(mode="after")
    def _trainer_of_the_feedback(self) -> Self:
        trainer, explicit = self.hyperparameters.trainer, self.source.explicit
        if explicit and trainer not in ("als", RATINGS):
            raise ValueError(f"the trainer {trainer} is for implicit feedback: leave the trainer of ratings unset")
        if explicit and self.confidence.half_life is not None:
            raise ValueError("ratings do not decay: a half-life of values is for implicit feedback")
        if explicit:
            for name in ("min_item_views", "max_item_views", "min_user_views", "max_value"):
                if getattr(self.filters, name) is not None:
                    raise ValueError(
                        f"{name} is for implicit feedback: bound the users of an item or the items of a user instead"
                    )
        if not explicit and trainer == RATINGS:
            raise ValueError("the trainer ratings is for explicit feedback: --feedback explicit")
        if explicit:
            object.__setattr__(self, "hyperparameters", self.hyperparameters.model_copy(update={"trainer": RATINGS}))
        return self

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of `fallback`, or their default: readers need not read the source where seen items are published."""
        if self.fallback.steps is not None:
            return self.fallback.steps
        return ("popular",) if self.source.seen == "published" else ("fold_in", "popular")

    @property
    def simple_steps(self) -> bool:
        """True if every list ends with the popularity in the training snapshot, after fold-in if at all."""
        return self.steps in (("popular",), ("fold_in", "popular")) and not self.fallback.counts_times

    @property
    def reads_source(self) -> bool:
        """True if recommend() reads the source for more than seen items."""
        return "fold_in" in self.steps or self.fallback.counts_times
