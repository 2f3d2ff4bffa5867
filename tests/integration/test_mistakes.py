"""The list of mistakes: every setting, option, argument and call that a person can get wrong, and what is said of it. What
the world gets wrong (tables that are gone, rights, disks, ..) is in `test_mistaken_states.py`, random ones in
`test_nonsense.py`. After each, what is live serves on.

More of a kind are where that kind is at home: SELECTs as sources in `test_sources.py`, names in `test_registry.py`, files of
`load` in `test_load.py`, of `import` in `test_exchange.py`, embedded servers in `test_embedded.py`.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from support_mistakes import Shop, sentence_of, trained_shop

from recstore import Recommender
from recstore.api.options import SECTIONS, flag
from recstore.config import Settings

NO_SUCH = "Recommender 'nix' does not exist. `recstore list` shows the recommenders"
NOT_YET = "'books' has no live generation yet. Run: recstore retrain books"
NOT_A_NUMBER = "it must be a whole number"

V = TypeVar("V")


def each(value: V, keys: str) -> dict[str, V]:
    """Return a dict of keys, which semicolons and lines separate, with one value."""
    return dict.fromkeys(re.split(r"; |\n\s*", keys.strip()), value)


SETTINGS = {
    "database_url=mysql://x/y": (3, "mysql://.. is not a postgresql:// URL. Check RECSTORE_DATABASE_URL"),
    "database_url=me:s3cret@db/shop": (3, "it is no URL (postgresql://..). Check RECSTORE_DATABASE_URL"),
    "database_url=": (2, "RECSTORE_DATABASE_URL is not usable: it is empty; give a URL"),
    "broker_url=amqp://me:secret@x": (2, "RECSTORE_BROKER_URL is not usable: it must start with redis://"),
    "device=tpu": (2, "it must be auto, cpu or gpu"),
    "threads=many": (2, NOT_A_NUMBER),
    "attempts=1.5": (2, NOT_A_NUMBER),
    "threads=-1": (2, "it must be at least 0"),
    "flip_wait=-1": (2, "it must be at least 0"),
    "lock_attempts=0": (2, "it must be at least 1"),
    "calibration_questions=0": (2, "it must be at least 1"),
    "retry_backoff=-1": (2, "it must be at least 0"),
    "source_timeout=0": (2, "it must be above 0"),
    "dispatch_interval=0": (2, "it must be above 0"),
    "time_limit=0": (2, "it must be above 0"),
    "visibility_timeout=0": (2, "it must be above 0"),
    "history=0": (2, "it must be above 0"),
    "source_timeout=": (2, "it must be a number"),
    "prune_wait=nan": (2, "it must be a number"),
    "resend=soon": (2, "it must be a number"),
    "retention=inf": (2, "it must be at most 1000000000"),
    "lock_timeout=1e9": (2, "it must be at most 2147483"),
    "index_memory=99999999": (2, "it must be at most 2097151"),
    "index_workers=2000": (2, "it must be at most 1024"),
    "metrics_port=70000": (2, "it must be at most 65535"),
    "remote_control=perhaps": (2, "it must be true or false"),
}
"""RECSTORE_.. of the process, asked by `recstore list`."""

FREE = {
    "home": "any path can be a folder's",
    "explorer_password": "any text can be a password",
    "metrics_host": "any text can be an address: the worker tells when it binds",
}

DEFINITIONS = {
    "--query selec": 'The source cannot be read: syntax error at or near "selec". Try the query in psql first.',
    "--query": "Option '--query' requires an argument",
    '--table "Learning.page_views"': 'each name in quotes of its own where it needs them: "Learning".page_views.',
    "--table shop.nix": "no table shop.nix that this role can see. Write it as schema.table.",
    "--user nix": "shop.views has no column 'nix'; its columns are product_id, user_id, view_count. Name the columns with --user",
    "--item nix": "shop.views has no column 'nix'",
    "--value nix": "shop.views has no column 'nix'",
    "--last-at view_count": "the last_at column has the type integer, not timestamp, timestamptz or date.",
    "--feedback stars": "--feedback (source.feedback) is 'stars': it must be implicit or explicit.",
    "--negative ignore": "--negative (source.negative) is 'ignore': it must be drop, net or dislike.",
    "--duplicates median": "--duplicates (source.duplicates) is 'median': it must be sum, max, last or mean.",
    "--seen yesterday": "it must be live or published",
    "--candidates selec": 'The candidates cannot be read: syntax error at or near "selec". Try the query in psql first.',
    "--candidates-table shop.nix": "The candidates cannot be read: there is no table shop.nix that this role can see.",
    "--candidates-column title": "a column or a condition of candidates requires their table",
    "--candidates-condition visible": "a column or a condition of candidates requires their table",
    "--candidates-table shop.products --candidates-column title": "their ids have the type text, but the items' is integer",
    "--candidates-table shop.products --candidates TABLE": "give candidates as a query or as a table, not both",
    "--candidates-table shop.products --candidates-condition nix": 'column "nix" does not exist',
    "--fallback nix": "there is no step 'nix'; there are fold_in, popular, trending, query",
    "--fallback popular,popular": "name at least one step, and each at most once",
    "--fallback query": "the step query and the query belong together: give both or neither",
    "--fallback-query TABLE": "the step query and the query belong together: give both or neither",
    "--fallback query --fallback-query selec": 'The query of the fallback cannot be read: syntax error at or near "selec".',
    "--fallback-window long": 'write a number and a unit (seconds, minutes, hours, days, weeks), for example "30 days"',
    "--fallback-half-life 0days": "write a number and a unit",
    "--fallback fold_in --fallback-window 9days": "a window requires the step popular or trending",
    "--fallback trending --fallback-half-life 9days": "a half-life requires the step popular",
    "--fallback trending": "it has no column last_at, which the fallback, by --fallback-window, --fallback-half-life or",
    "--half-life 2months": "write a number and a unit",
    "--half-life 30days": "it has no column last_at, which --half-life needs. Name the column of times with --last-at",
    "--exclude selec": 'The exclusions cannot be read: syntax error at or near "selec". Try the query in psql first.',
    "--exclude TABLE": "The exclusions cannot be read:",
    "--max-item-views nan": "it must be a finite number",
    "--max-value inf": "it must be a finite number",
    "--bm25-k1 nan": "it must be a finite number",
    "--min-item-views 10 --max-item-views 5": "min_item_views = 10 is above max_item_views = 5, so nothing would be left",
    "--min-user-views many": "it must be a number",
    "--min-items-per-user 1.5": NOT_A_NUMBER,
    "--factors many": "--factors (hyperparameters.factors) is 'many': it must be a whole number.",
    "--min-items-per-user 9 --max-items-per-user 3": "so nothing would be left",
    "--until-stable=maybe": "Option '--until-stable' does not take a value",
    "--confidence cubic": "--confidence (confidence.function) is 'cubic': it must be linear, log, binary, share, bm25 or"
    " power.",
    "--confidence-scale median": "it must be mean or none",
    "--log-eps 0": "it must be above 0",
    "--spectral-weight 0": "it must be above 0",
    "--trainer nix": "There is no trainer named 'nix'; choose one of: als,",
    "--factors 1985": "1985 factors were requested; the limit is 1984",
    "--seed 2147483648": "it must be below 2147483648",
    "--spectral-share 1": "it must be below 1",
    "--vector-type bit": "it must be vector or halfvec",
    "--vector-type vector --dimensions 961": "961 dimensions need the vector type halfvec",
    "--factors 100 --dimensions 64": "100 factors do not fit 64 dimensions: raise the dimensions",
    "--search fuzzy": "it must be auto, exact or hnsw",
    "--index-users=maybe": "does not take a value",
    "--fresh=maybe": "does not take a value",
    "--schedule @daily": "a schedule has five fields: minute, hour, day of the month",
    "--timezone Mars/Olympus": "this time zone does not exist; write it as Area/City",
    "--recommend-into lists": "name one as schema.table",
    "--similar-into shop.": "name one as schema.table",
    "--lists-schedule daily": "a schedule has five fields",
    "--refresh-schedule daily": "a schedule has five fields",
    "--titles nix": "write it as table:id_column:title_column, for instance",
    "--titles shop.nix:a:b": "The titles' table 'shop.nix' does not exist.",
    "--titles shop.products:product_id:title:": "with :picture_column behind it where a column has the URLs of pictures.",
    "--titles shop.products:product_id:title:a": "shop.products has no column 'a' for titles; it has product_id, title, visible.",
    "--titles shop.products:a:b": "shop.products has no column 'a' for titles; it has product_id, title, visible.",
    "--file nothing.toml": "There is no file nothing.toml.",
    "--file /": "Is a directory",
    "--nix 1": "No such option: --nix",
    **each(
        "it must be at most",
        """
        --max-nulls 2; --bm25-b 1.5; --alpha 1e7; --iterations 1001; --item-exponent 3; --popularity-exponent 2; --ann-recall 1.1
        --held-out 0.5; --tolerance 2; --activity-exponent 2; --rarity-exponent 1.5
        """,
    ),
    **each(
        "it must be at least",
        """
        --min-item-views -1; --min-users-per-item 0; --max-items-per-user 0; --regularization -1; --warm-iterations -1
        --singular-exponent -1; --user-exponent -1; --view-exponent -1; --ridge -1; --dimensions 0; --keep 0; --max-fall -1
        --lists-k 0
        """,
    ),
}
"""Of `recstore create fresh --table shop.views --item product_id ..`; `alter`, `evaluate` and `benchmark` share them."""

TOML = {
    "[source": "d.toml is not valid TOML",
    "x = 1": "x = 1 is outside of any section; there are the sections source, candidates,",
    "name = 'books'": "d.toml is about another recommender than 'fresh'.",
    "[nix]\na = 1": "[nix] is no section of a recommender; there are source, candidates,",
    "[source]\nnix = 1": "'nix' is no setting of [source]; there are feedback, query, table,",
    "[source]\ntable = 3": "--table (source.table) is 3: it must be text.",
    "source = 'shop.views'": "source = 'shop.views' is outside of any section",
    "[[source]]\ntable = 'x'": "is outside of any section",
    "[filters]\nmin_item_views = 'many'": "--min-item-views (filters.min_item_views) is 'many': it must be a number.",
    "[filters]\nuntil_stable = 'perhaps'": "it must be true or false",
    "[hyperparameters]\nfactors = 1.5": "--factors (hyperparameters.factors) is 1.5: it must be a whole number.",
    "[hyperparameters.options]\nx = [1]": "hyperparameters.options.x is [1]: it must be true or false, a number or text.",
    "[titles]\ntable = 'x'": "titles.item is missing. titles.title is missing.",
    "[schedule]\ncron = 5": "--schedule (schedule.cron) is 5: it must be text.",
    "[source]\nquery = 'SELECT 1; DROP TABLE x'": "cannot insert multiple commands",
}
"""Files of `recstore create fresh --file d.toml`."""

SPACES = {
    "[alpha": "is not valid TOML",
    "alpha = 'many'": "alpha = 'many': it must be a number.",
    "trainer = []": "No trainer is left to choose from.",
}
"""Files of `recstore tune retail --space d.toml`, refused before anything is read."""

COMMANDS = {
    "": (2, "Missing command"),
    "nonsense": (2, "No such command 'nonsense'"),
    "--nix list": (2, "No such option: --nix"),
    "--database": (2, "Option '--database' requires an argument"),
    "list extra": (2, "unexpected extra argument"),
    "recommend retail 1 2": (2, "unexpected extra argument"),
    "recommend retail": (2, "Name a user, or the items of a basket with --items."),
    "recommend retail --items 3,x": (2, "'x' is not a valid item id: its type is integer."),
    "recommend retail --items 3,5 --weights 1": (2, "There are 1 weights, but 2 items."),
    "recommend retail --items 3 --weights much": (2, "weights is 'much': it must be a number"),
    "recommend retail 1 --items 3 --weights 1": (2, "--weights goes with --items without a user"),
    "recommend retail 1 --weights 1": (2, "--weights goes with --items without a user"),
    "recommend retail --items 3 --seen": (2, "--seen and --fresh without --items"),
    "create": (2, "Missing argument 'name'"),
    "create fresh": (2, "Where are the view counts? Give --table schema.table, --query 'SELECT ..' or --file"),
    "create Fresh --table shop.views": (2, "'Fresh' is not a valid name of a recommender: it is not a plain"),
    "create shop --table shop.views": (2, "Schema 'shop' already exists and does not belong to recstore"),
    "create select --table shop.views": (2, "it is a reserved word of SQL"),
    "create retail --table shop.views": (2, "already exists. To see it, run `recstore show retail`"),
    "create fresh --table shop.views --query TABLE": (2, "give either a query or a table"),
    "create fresh --table shop.products --user title --item product_id --value title": (2, "is not numeric"),
    "create fresh --table shop.products --user visible --item product_id": (2, "has type boolean. Supported types"),
    "alter retail --factors 100": (2, "'retail' has room for 64 factors, not 100. Add --resize to make more"),
    "alter retail --resize --factors 9999": (2, "9999 factors were requested; the limit is 1984"),
    "alter retail --user view_count": (2, "cast them in a query, or create another recommender"),
    "alter retail --vector-type halfvec": (2, "No such option: --vector-type"),
    "grant retail nobody_at_all": (2, "There is no role named 'nobody_at_all'."),
    "doctor retail --reader nobody_at_all": (2, "There is no role named 'nobody_at_all'."),
    "drop retail": (2, "Add --yes"),
    "db downgrade base": (2, "below 0008 the erasures"),
    "retrain retail --device tpu": (2, "--device is 'tpu': choose one of auto, cpu, gpu."),
    "publish retail": (1, "'retail' has no generation ready to publish. `recstore generations retail` lists"),
    "rollback retail": (1, "'retail' has no earlier generation to roll back to. `recstore generations retail` lists"),
    "rollback retail --to 99": (2, "Generation 99 of 'retail' does not exist or cannot be made live. `recstore"),
    "evaluate retail --split time": (2, "These interactions have no times and cannot be split by time. Name a"),
    "evaluate retail --split sideways": (2, "choose one of time, user, share"),
    "evaluate retail --share 150%": (2, "must be between 0 and 1, not 1.5"),
    "evaluate retail --share many": (2, "--share is 'many': write it as 20% or 0.2."),
    "evaluate retail --items 100000": (2, "no user has 200000 items. Hold out fewer items of each user."),
    "evaluate retail --test-file nothing": (2, "There is no file nothing."),
    "benchmark --train nothing --test nothing": (2, "There is no file nothing."),
    "evaluate retail --test-file /": (2, "/ is a folder"),
    "benchmark --train / --test /": (2, "/ is a folder"),
    "import retail /": (2, "Is a directory"),
    "evaluate retail --test-query selec": (2, 'syntax error at or near "selec". It is a SELECT of user_id and item_id'),
    "evaluate retail --test-query TABLE --test-file x": (2, "Give one test set: --test-query or --test-file."),
    "evaluate retail --test-file pairs.csv --items 1": (2, "leave out --split, --share and --items"),
    "evaluate retail --k ten": (2, "--k is 'ten': write the lengths of the lists as whole numbers, for instance"),
    "evaluate retail --users 200%": (2, "--users is '200%': write how many, for instance 1000"),
    "evaluate retail --search fuzzy": (2, "--search is 'fuzzy': choose one of auto, exact, hnsw."),
    "evaluate retail --k 0": (2, "--k"),
    "evaluate retail --users 0": (2, "--users"),
    "evaluate retail --split user --items 500": (2, "no user has 1000 items"),
    "evaluate retail --test-query SELECT/**/1/**/AS/**/user_id": (2, "item_id does not exist"),
    "evaluate retail --test-query SELECT/**/1/**/AS/**/user_id,'x'/**/AS/**/item_id": (2, "integer"),
    "evaluate retail --test-query SELECT/**/1/**/user_id,2/**/item_id/**/WHERE/**/false": (2, "The test query"),
    "evaluate retail --test-query SELECT/**/9999/**/user_id,2/**/item_id": (2, "No user has both"),
    "evaluate retail --test-query SELECT/**/user_id,product_id/**/item_id/**/FROM/**/shop.views": (
        2,
        "nothing to train on",
    ),
    "evaluate retail --report /nonexistent/x.html": (2, "Nothing was written to /nonexistent: there is no such"),
    "recommend-all retail --into /nonexistent/x.csv": (2, "Nothing was written to /nonexistent: there is no such"),
    "evaluate retail --report /": (2, "Nothing was written to /: that is a folder. Choose a file"),
    "evaluate retail --report /dev/full": (2, "Nothing was written to /dev/full: that is no ordinary file."),
    "evaluate retail --pictures .": (2, "--pictures go with a report: add --report FILE.html."),
    "tune retail --metric accuracy@10": (2, "'accuracy@10'"),
    "tune retail --time soon": (2, "--time is 'soon': it must be a number."),
    "tune retail --trainer nix": (2, "There is no trainer named 'nix'; choose among: als,"),
    "tune retail --space nothing.toml": (2, "There is no file nothing.toml."),
    "tune retail --grid factors": (2, "--grid is 'factors': write it as name=value,value, for instance"),
    "tune retail --grid nix=1,2": (2, "'nix'"),
    "tune retail --grid iterations=3,5": (2, "learning curve"),
    "tune retail --metric mse": (2, "ndcg@20"),
    "tune retail --grid alpha=1 --trainer als": (2, "give either --grid or what narrows the search, not both"),
    "tune retail --max-iterations 1001": (2, "--max-iterations is '1001': it must be at most 1000."),
    "tune retail --resume": (2, "'retail' has no unfinished study. `recstore studies retail` lists"),
    "tune retail --resume --new": (2, "Give one of --resume, --new and --study."),
    "tune retail --study 99": (2, "Study 99 does not exist. `recstore studies` lists the studies."),
    "tune retail --parallel 2": (2, "it goes with --background"),
    "tune retail --resize": (2, "it goes with --adopt"),
    "tune retail --stop --resume": (2, "--stop goes with no other option but --study"),
    "tune retail --background --adopt": (2, "Adopt and report when it has ended"),
    "studies retail 99": (2, "Study 99 of 'retail' does not exist. `recstore studies` lists the studies."),
    "benchmark": (2, "Missing option '--train'"),
    "benchmark --train pairs.csv --test empty.csv": (2, "empty.csv is empty."),
    "load empty.csv --table shop.x": (2, "empty.csv is empty."),
    "benchmark --train damaged.gz --test pairs.csv": (2, "damaged.gz"),
    "benchmark --train pairs.csv --test pairs.csv --format xml": (2, "--format is 'xml': choose one of auto,"),
    "benchmark --train pairs.csv --test pairs.csv --trials 3": (2, "--trials goes with --tune."),
    "benchmark --train pairs.csv --test pairs.csv --keep retail": (2, "Recommender 'retail' already exists."),
    "benchmark --train pairs.csv --test pairs.csv --keep Movies": (2, "'Movies'"),
    "benchmark --train pairs.csv --test pairs.csv --keep movies --no-sql": (2, "--keep"),
    "benchmark --train pairs.csv --test pairs.csv --negatives none.txt": (2, "none.txt"),
    "benchmark --train pairs.csv --test pairs.csv": (2, "every test pair"),
    "recommend-all retail": (2, "Missing option '--into'"),
    "recommend-all retail --into nix": (2, "'nix' is neither a table nor a file: write a table as schema.table"),
    "recommend-all retail --into shop.views": (1, "in the schema 'shop'. Ask the schema's owner to run: GRANT"),
    "recommend-all retail --into nix.lists": (2, "There is no schema 'nix' for the table nix.lists. Name a table as"),
    "recommend-all retail --into retail.lists": (2, "The schema 'retail' is reserved: name a table in another"),
    "recommend-all retail --into clicks.lists": (2, "The schema 'clicks' is reserved: name a table in another"),
    "recommend-all retail --into ./": (2, "its ending is none of .csv, .csv.gz and .parquet"),
    "recommend-all retail --into folder.csv --yes": (2, "Nothing was written to folder.csv: that is a folder"),
    "recommend-all retail --into pairs.csv": (2, "pairs.csv exists. Replace it? Add --yes"),
    "export retail pairs.csv": (2, "pairs.csv exists. Replace it? Add --yes"),
    "recommend-all retail --into x.csv --users selec": (2, 'syntax error at or near "selec". Give a SELECT whose'),
    "lists retail": (2, "names no table for lists: recstore alter retail --recommend-into schema.table"),
    "request lists retail": (2, "names no table for lists: recstore alter retail --recommend-into schema.table"),
    "load nothing.csv --table shop.x": (2, "There is no file nothing.csv."),
    "load / --table shop.x": (2, "/ is a folder: name one file in it."),
    "load pairs.csv": (2, "Missing option '--table'"),
    "load pairs.csv --table x.y.z.w": (2, "--table is 'x.y.z.w', which names no table"),
    "load pairs.csv --table nix.x": (2, "There is no schema 'nix' to make nix.x in. Make it first: CREATE SCHEMA nix;"),
    "load pairs.csv --table shop.views": (2, "Nothing was written: shop.views already exists."),
    "load pairs.csv --table shop.views --append": (1, 'Have the owner run: GRANT INSERT ON shop.views TO "worker";'),
    "load pairs.csv --table shop.x": (1, 'GRANT USAGE, CREATE ON SCHEMA shop TO "worker";'),
    "load pairs.csv --table shop.products_pkey --append": (2, "is an index"),
    "load pairs.csv --table shop.x --append": (2, "There is no table shop.x, so nothing can be added"),
    "load pairs.csv --table shop.x --append --replace": (2, "--append and --replace exclude each other."),
    "load pairs.csv --table shop.x --type user_id": (2, "--type is 'user_id': write it as COLUMN=TYPE, for instance"),
    "load pairs.csv --table shop.x --max-bad many": (2, "--max-bad is 'many': give a number of lines, or a share"),
    "runs --state odd": (2, "choose one of running, succeeded"),
    "logs 99": (2, "Run 99 does not exist. `recstore runs` lists the runs."),
    "request retrain retail --timeout 5": (2, "it goes with --wait"),
    "request cancel 99": (2, "Request 99 does not exist. `recstore requests` lists the requests."),
    "export retail /nonexistent/x.npz": (2, "Nothing was written to /nonexistent: there is no such folder."),
    "export retail / --yes": (2, "Nothing was written to /: that is a folder."),
    "export retail x.npz --generation 99": (2, "Generation 99 of 'retail'"),
    "import nix pairs.csv": (2, "pairs.csv cannot be imported: it is no file of `recstore export`"),
    "import retail nothing.npz": (2, "nothing.npz cannot be imported: there is no such file. Nothing was changed."),
    "similar retail": (2, "Missing argument 'item_id'"),
    "similar retail abc": (2, "'abc' is not a valid item id: its type is integer."),
    "similar retail 1 -k 0": (2, "--k is 0: it is the number of rows wanted and must be at least 1."),
    "recommend retail 99999999999999999999": (2, "is not a valid user id: its type is bigint."),
    "recommend retail 2026-01-01": (2, "'2026-01-01' is not a valid user id: its type is bigint."),
    "recommend retail 1 -k 99999999999": (2, "must be at most 2147483647"),
    "recommend retail \udcff": (2, "is not text in this locale. Use a UTF-8 locale"),
    "popular retail -k -1": (2, "must be at least 1"),
    "health": (3, "The broker could not be reached: No such file or directory"),
    "db nix": (2, "No such command 'nix'"),
    "db downgrade": (2, "Missing argument 'revision'"),
    "db downgrade base --yes": (1, "there are recommenders: books, clicks, retail. Drop them first"),
    "db downgrade nix --yes": (2, "The revisions are base, 0001, 0002"),
    "db grant nix": (2, "There is no role named 'nix'."),
    "db revoke nix": (2, "There is no role named 'nix'."),
    "start --version 12": (2, "PostgreSQL 12 is not embedded; the versions are 18, 16."),
    "stop --now": (2, "No such option: --now"),
    **each(
        (2, NO_SUCH),
        """
        alter nix --factors 8; show nix; grant nix application; drop nix --yes; retrain nix; reindex nix; publish nix
        generations nix; rollback nix; prune nix; evaluate nix; tune nix; studies nix; recommend-all nix --into x.csv
        similar-all nix --into x.csv; lists nix; status nix; runs nix; requests nix; logs nix; request retrain nix
        request reindex nix --wait; request lists nix; export nix x.npz; similar nix 1; recommend nix 1; popular nix
        doctor nix
        """,
    ),
    **each(
        (2, "it must be at least"),
        """
        retrain retail --threads -1; publish retail --wait -1; prune retail --keep 0; evaluate retail --negatives -1
        tune retail --trials 0; studies retail -n 0; recommend-all retail --into x.csv --k 0
        similar-all retail --into x.csv --min-users 0; status --interval 0; request retrain retail --wait --timeout -1
        up --grace -1; worker-demo --seconds 0
        """,
    ),
    **each(
        (2, "it must be a whole number"),
        """
        retrain retail --threads many; rollback retail --to nix; tune retail --grid factors=many; studies retail many
        runs -n many; request cancel many; similar retail 1 --min-users many
        """,
    ),
    **each(
        (1, NOT_YET),
        """
        refresh books; reindex books; rollback books; recommend-all books --into x.csv; export books x.npz; similar books 1
        recommend books 1; popular books
        """,
    ),
}
"""Command lines: exit code, and what is said."""

SQL = {
    "SELECT * FROM retail.recommend('abc', 3)": 'invalid input syntax for type bigint: "abc"',
    "SELECT recstore.request_retrain('nix')": 'there is no recommender named "nix"',
    "SELECT recstore.request_reindex(NULL)": "there is no recommender named",
    "SELECT recstore.request_refresh('nix')": 'there is no recommender named "nix"',
    "SELECT recstore.request_lists('nix')": 'there is no recommender named "nix"',
    "SELECT recstore.request_lists('retail')": 'the definition of "retail" names no table for lists',
}
"""Statements that are refused."""


@pytest.fixture(scope="module")
def mistaken(server: Any, shop_template: str) -> Iterator[Shop]:
    with trained_shop(server, shop_template) as shop:
        yield shop


@pytest.fixture(autouse=True)
def unharmed(mistaken: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of its own for relative names, and at the end of each test what is live is as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSTORE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RECSTORE_BROKER_URL", f"redis+socket://{tmp_path}/nothing")
    yield
    mistaken.assert_unharmed()


@pytest.mark.parametrize("given", SETTINGS)
def test_settings(
    given: str, mistaken: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (code, said), (name, _, text) = SETTINGS[given], given.partition("=")
    monkeypatch.setenv(f"RECSTORE_{name.upper()}", text)
    answer = mistaken.run(capsys, "list", url="" if name == "database_url" else None)
    sentence = sentence_of(answer)
    assert (answer.code, f"RECSTORE_{name.upper()}" in sentence) == (code, True)
    assert said in sentence
    assert "s3cret" not in sentence


def test_every_setting_is_in_the_list() -> None:
    assert {given.partition("=")[0] for given in SETTINGS} | FREE.keys() == Settings.model_fields.keys()


@pytest.mark.parametrize("options", DEFINITIONS)
def test_definitions(options: str, mistaken: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["create", "fresh"]
    if not options.startswith(("--table", "--query")):
        base += ["--table", "shop.views"]
    if not options.startswith(("--item ", "--query")):
        base += ["--item", "product_id"]
    answer = mistaken.run(capsys, *base, *options.split())
    assert DEFINITIONS[options] in sentence_of(answer)
    assert answer.code == 2


def test_every_option_of_a_definition_is_in_the_list() -> None:
    listed = {word.partition("=")[0] for options in DEFINITIONS for word in options.split() if word.startswith("--")}
    every = {
        f"--{flag(section, name)}"
        for section, model in SECTIONS.items()
        for name in model.model_fields
        if name != "options"
    }
    assert every <= listed


@pytest.mark.parametrize("text", TOML)
def test_definitions_in_files(text: str, mistaken: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    given = "" if "source" in text.partition("=")[0] else "\n[source]\ntable = 'shop.views'\nitem = 'product_id'\n"
    Path("d.toml").write_text(text + given)
    answer = mistaken.run(capsys, "create", "fresh", "--file", "d.toml")
    assert TOML[text] in sentence_of(answer)
    assert answer.code == 2


@pytest.mark.parametrize("text", SPACES)
def test_spaces_in_files(text: str, mistaken: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    Path("d.toml").write_text(text)
    answer = mistaken.run(capsys, "tune", "retail", "--space", "d.toml")
    assert SPACES[text] in sentence_of(answer)
    assert (answer.code, "interactions of" in answer.err) == (2, False)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands(line: str, mistaken: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pairs.csv").write_text("user_id,item_id\n1,2\n")
    Path("empty.csv").write_text("")
    Path("damaged.gz").write_bytes(b"\x1f\x8b\x08" + bytes(20))
    Path("folder.csv").mkdir()
    code, said = COMMANDS[line]
    answer = mistaken.run(capsys, *line.split())
    assert answer.code == code
    assert said in sentence_of(answer)


@pytest.mark.parametrize("line", ["show nix", "recommend books 1", "prune retail --keep 0", "nonsense", "drop retail"])
def test_commands_for_programs(line: str, mistaken: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = COMMANDS[line]
    answer = mistaken.run(capsys, *line.split(), "--json")
    (told,) = map(json.loads, answer.err.splitlines())
    assert (answer.code, answer.out, told.keys()) == (code, "", {"error", "kind", "data"})
    assert said in told["error"]


@pytest.mark.parametrize("statement", SQL)
def test_statements(statement: str, mistaken: Shop) -> None:
    with pytest.raises(psycopg.Error) as caught:
        mistaken.watcher.execute(statement)
    assert SQL[statement] in str(caught.value.diag.message_primary)
    for request in ("999", "NULL"):  # which is no error
        assert mistaken.watcher.execute(f"SELECT recstore.cancel_request({request}) AS done").fetchone() == {
            "done": False
        }


def test_python_over_an_engine(mistaken: Shop) -> None:
    engine = sa.create_engine(mistaken.database.url.replace("postgresql:", "postgresql+psycopg:"))
    retail, books = Recommender(engine, "retail"), Recommender(engine, "books")
    with pytest.raises(sa.exc.DBAPIError, match="must be from 1 to 2147483647, not 0"):
        retail.recommend(1, 0)
    with pytest.raises(sa.exc.DBAPIError, match="books has no live generation yet"):
        books.user_vector(1)
    with pytest.raises(sa.exc.ProgrammingError, match='schema "nix" does not exist'):
        Recommender(engine, "nix").recommend(1)
    with pytest.raises(TypeError, match="takes an Engine, a Connection or a Session"):
        Recommender(mistaken.database.url, "retail")  # type: ignore[arg-type]
    assert (books.recommend(1), books.generation(), retail.similar_items(999999)) == ([], None, [])
    assert np.isfinite(retail.user_vector(999999)).all()
    engine.dispose()
