"""What a recommender is: source, filters, hyperparameters, publication; the shape of its TOML file and of its row.

Pure data with its own checks; knows no database. Every field here is a setting of `recstore create` and `alter`.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from recstore import schedule

MAX_FACTORS = 1984
"""Two `halfvec` of this many dimensions still fit one 8 kB page, so a row never goes out of line."""

DEFAULT_FACTORS = 256
"""Of a recommender that names none, if it has more items than that."""

MAX_VECTOR_DIMENSIONS = 960
"""Two single-precision `vector` of this many dimensions still fit one 8 kB page."""

Duplicates = Literal["sum", "max", "last", "mean"]
ConfidenceFunction = Literal["linear", "log", "binary", "share", "bm25"]
Search = Literal["auto", "exact", "hnsw"]

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(Part):
    """Where the interactions come from: either `query`, or `table` with its column names."""

    query: str | None = Field(None, description="SELECT that yields user_id, item_id, value and, if known, last_at")
    table: str | None = Field(None, description="table or view, as schema.table")
    user: str = Field("user_id", description="the table's column of user ids")
    item: str = Field("item_id", description="the table's column of item ids")
    value: str | None = Field(None, description="the table's column of values; without it every row counts 1")
    last_at: str | None = Field(None, description="the table's column with the time of the last interaction")
    duplicates: Duplicates = Field("sum", description="how several rows of one (user, item) pair become one value")
    max_nulls: float = Field(0.01, ge=0, le=1, description="largest share of rows with NULL or NaN that is accepted")
    seen: Literal["live", "published"] = Field(
        "live", description="where recommend() looks up seen items: the live source, or a table of each generation"
    )

    @model_validator(mode="after")
    def _one_of_query_and_table(self) -> Self:
        if (self.query is None) == (self.table is None):
            raise ValueError("give either a query or a table")
        return self


class Candidates(Part):
    """Which items may be recommended now, read live by every function that returns items: either `query`, or `table` with
    a condition. None of them: every item."""

    query: str | None = Field(None, description="SELECT of the ids of items that may be recommended now; unset: all")
    table: str | None = Field(None, description="instead of the SELECT: table or view of them, as schema.table")
    column: str | None = Field(None, description="that table's column of item ids; unset: as the source's")
    condition: str | None = Field(None, description="which rows of that table, for instance visible AND stock > 0")

    @property
    def given(self) -> bool:
        """Whether anything limits what may be recommended."""
        return self.query is not None or self.table is not None

    @model_validator(mode="after")
    def _one_of_query_and_table(self) -> Self:
        if self.query is not None and self.table is not None:
            raise ValueError("candidates are either a query or a table, not both")
        if self.table is None and (self.column is not None or self.condition is not None):
            raise ValueError("a column or a condition of candidates needs their table")
        return self


class Filters(Part):
    """Which interactions take part. Items first, then users; once, or repeated until nothing more is dropped."""

    min_item_views: NonNegative | None = Field(None, description="least total views of an item")
    max_item_views: NonNegative | None = Field(None, description="most total views of an item")
    min_users_per_item: Count | None = Field(None, description="least distinct users of an item")
    min_user_views: NonNegative | None = Field(None, description="least total views of a user")
    min_items_per_user: Count | None = Field(None, description="least distinct items of a user")
    max_items_per_user: Count | None = Field(None, description="most distinct items of a user (more is a bot)")
    max_value: Positive | None = Field(None, description="cap on the value of one pair")
    until_stable: bool = Field(False, description="repeat the filters until nothing more is dropped")

    @model_validator(mode="after")
    def _least_below_most(self) -> Self:
        for least, most in (("min_item_views", "max_item_views"), ("min_items_per_user", "max_items_per_user")):
            low, high = getattr(self, least), getattr(self, most)
            if low is not None and high is not None and low > high:
                raise ValueError(f"{least} = {low:g} is above {most} = {high:g}, so nothing would be left")
        return self


class Confidence(Part):
    """c = 1 + alpha * w(r): the function w and its constants (design: Hu, Koren and Volinsky 2008)."""

    function: ConfidenceFunction = Field("bm25", description="w: linear, log, binary, share or bm25")
    scale: Literal["mean", "none"] = Field(
        "mean", description="divide w by its mean, so alpha means the same everywhere"
    )
    eps: Positive = Field(1.0, description="of log: w = log(1 + r / eps)")
    k1: Positive = Field(100.0, description="of bm25")
    b: float = Field(0.8, ge=0, le=1, description="of bm25")


class Hyperparameters(Part):
    """Of training. `factors` None means min(256, items - 1). A trainer ignores what is said to be of others."""

    trainer: str = Field("als", description="als, spectral, hybrid, or one that an installed package brings")
    factors: Annotated[int, Field(ge=1)] | None = Field(
        None, description="dimensions of the factors; unset: min(256, items - 1)"
    )
    regularization: Annotated[float, Field(ge=0, le=1e9)] | None = Field(
        None, description="L2 weight on the factors; unset: scaled to the data, by what random data would need"
    )
    alpha: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        None, description="weight of a view: c = 1 + alpha * w; unset: scaled to the data, by their density"
    )
    iterations: Annotated[int, Field(ge=1, le=1000)] = Field(15, description="sweeps of alternating least squares")
    warm_iterations: Annotated[int, Field(ge=0, le=1000)] = Field(
        5, description="sweeps of a training that goes on from the live generation's items; 0: never go on from them"
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(42, description="of the initial factors")
    item_exponent: Annotated[float, Field(ge=-1, le=2)] = Field(
        0.4, description="of spectral and hybrid: items weigh by their number of users to this power"
    )
    singular_exponent: Annotated[float, Field(ge=0, le=8)] = Field(
        0.5, description="of spectral and hybrid: factors weigh by their singular value to this power"
    )
    spectral_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.25, description="of hybrid: share of the factors that are spectral, the others are als's"
    )
    spectral_weight: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.35, description="of hybrid: weight of the spectral part's scores, als's weigh 1 less this"
    )
    options: dict[str, bool | int | float | str] = Field(
        {}, description="of trainers that other packages bring: their own settings"
    )


class Storage(Part):
    """Of the vectors in Postgres. Fixed at creation; changing them is an operation of its own."""

    vector_type: Literal["vector", "halfvec"] | None = Field(
        None, description="unset: vector up to 960 dimensions, halfvec above"
    )
    dimensions: Annotated[int, Field(ge=1)] | None = Field(
        None, description="room for factors; unset: factors rounded up to 64"
    )


class Publication(Part):
    """How a generation goes live and how long it is kept."""

    keep: Count = Field(2, description="generations kept, the live one included")
    search: Search = Field("auto", description="plan of the vector searches: calibrated, always exact, or always HNSW")
    index_users: bool = Field(False, description="build an HNSW index on users too (similar_users, users_for_item)")
    ann_recall: float = Field(0.99, gt=0, le=1, description="least ANN recall@10 that calibration accepts")


class Gate(Part):
    """What a new generation must not be: worse than the live one on pairs that neither was trained on, or built from a
    source that lost most of its rows."""

    held_out: float = Field(
        0.02, ge=0, le=0.2, description="largest share of the pairs that the items are not trained on; 0: no gate"
    )
    tolerance: float = Field(
        0.05, ge=0, le=1, description="largest loss of NDCG@20, as a share of the live generation's, that may go live"
    )
    max_fall: float = Field(
        0.5, ge=0, le=1, description="largest fall of users, items or pairs against the live generation; 1: any"
    )


class Schedule(Part):
    """When the workers retrain; kept by their dispatcher, from one moment to the next."""

    cron: str | None = Field(
        None, description="when to retrain: minute hour day month weekday, or seconds before these"
    )
    timezone: str = Field("UTC", description="time zone of the schedule, for instance Europe/Madrid")

    @field_validator("cron")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        return None if value is None else schedule.checked_cron(value)

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, value: str) -> str:
        return schedule.checked_timezone(value)


class Lists(Part):
    """The lists of all users and items, written to tables by the workers, each time anew."""

    recommend_into: str | None = Field(None, description="table of every user's recommendations, as schema.table")
    similar_into: str | None = Field(None, description="table of every item's similar items, as schema.table")
    k: Annotated[int, Field(ge=1, le=10_000)] = Field(20, description="length of these lists")
    cron: str | None = Field(
        None, description="when to write them, as of the schedule, in its time zone; unset: when asked to"
    )

    @field_validator("cron")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        return None if value is None else schedule.checked_cron(value)

    @field_validator("recommend_into", "similar_into")
    @classmethod
    def _table(cls, value: str | None) -> str | None:
        if value is not None and (
            not all(value.partition(".")) or "/" in value or value.lower().endswith((".csv", ".csv.gz", ".parquet"))
        ):
            raise ValueError("the workers write lists to tables: write it as schema.table")
        return value

    @model_validator(mode="after")
    def _times_need_a_table(self) -> Self:
        if self.recommend_into is not None and self.recommend_into == self.similar_into:
            raise ValueError("recommend_into and similar_into are two tables")
        if self.cron is not None and self.recommend_into is None and self.similar_into is None:
            raise ValueError("times to write lists at need a table: recommend_into, similar_into, or both")
        return self


class Titles(Part):
    """A lookup table of names, for people who read lists at the command line."""

    table: str
    item: str
    title: str


class Definition(Part):
    """A recommender's whole configuration; what its TOML file says and what its row stores."""

    source: Source
    candidates: Candidates = Candidates()
    filters: Filters = Filters()
    confidence: Confidence = Confidence()
    hyperparameters: Hyperparameters = Hyperparameters()
    storage: Storage = Storage()
    publication: Publication = Publication()
    gate: Gate = Gate()
    schedule: Schedule = Schedule()
    lists: Lists = Lists()
    titles: Titles | None = None
