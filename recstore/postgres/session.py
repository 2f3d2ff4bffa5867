"""The settings of recstore's own sessions, whatever a role, a database or postgresql.conf sets. Knows no recommender."""

import json
from functools import partial
from typing import Any

import psycopg
from psycopg.types.json import set_json_dumps

from recstore.errors import TransactionPooler
from recstore.postgres import pooler

SEARCH_PATH = "pg_catalog, pg_temp"
"""Schemas in which recstore's own statements find names. Another role may have CREATE on any other schema: its function or
operator with exactly matching types would win over PostgreSQL's."""

LIFTED = (
    "statement_timeout",
    "transaction_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "default_transaction_read_only",
)
"""Settings that are turned off, except where the URL sets them: they are meant for queries, not for index builds."""

FIXED = {
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "array_nulls": "on",
    "backslash_quote": "safe_encoding",
    "bytea_output": "hex",
    "check_function_bodies": "on",
    "client_encoding": "UTF8",
    "client_min_messages": "notice",
    "debug_parallel_query": "off",
    "default_table_access_method": "heap",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read committed",
    "exit_on_error": "off",
    "extra_float_digits": "1",
    "force_parallel_mode": "off",
    "lc_numeric": "C",
    "plan_cache_mode": "auto",
    "quote_all_identifiers": "off",
    "restrict_nonsystem_relation_kind": "",
    "row_security": "on",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
}
"""Settings on which the meaning of a statement or of its answer depends."""

_WANTED = ", ".join(
    [f"('{name}', '{value}', false)" for name, value in FIXED.items()]
    + [f"('{name}', '{'off' if name.startswith('default') else '0'}', true)" for name in LIFTED]
)


def _setting(local: str) -> str:
    """Return the statement that sets what is wanted, and turns the planner's methods on, enable_*. It needs `SEARCH_PATH`."""
    return f"""
    SELECT set_config(s.name, coalesce(w.value, s.boot_val), {local})
    FROM pg_settings s LEFT JOIN (VALUES {_WANTED}) w (name, value, lifted) ON w.name = s.name
    WHERE s.context = 'user'
        AND (w.name IS NOT NULL OR s.category = 'Query Tuning / Planner Method Configuration')
        AND s.setting <> coalesce(w.value, s.boot_val)
        AND NOT (coalesce(w.lifted, false) AND s.source IN ('client', 'session'))
    """  # noqa: S608


SETTINGS = _setting("false")
"""Statement for a session."""

LOCAL_SETTINGS = _setting("true")
"""Statement that lasts until the end of the transaction, for a session that another client may get next."""


def _owner(local: str) -> str:
    """Return the statement that makes a member of the owner of recstore's schemas work as this owner. A row if the login is
    another role with the owner's rights. `refused`, and nothing set: for a superuser, whose rights any function called could take
    back, and for a member that cannot SET ROLE, whose new tables would be its own."""
    return f"""
    SELECT m.login, m.owner, m.refused, CASE WHEN m.refused IS NULL THEN set_config('role', m.owner, {local}) END
    FROM (
        SELECT l.rolname::text AS login, o.rolname::text AS owner,
            CASE
                WHEN l.rolsuper AND NOT o.rolsuper THEN 'superuser'
                WHEN NOT pg_has_role(l.oid, o.oid, s.word) THEN 'not SET'
            END AS refused
        FROM pg_namespace n
        JOIN pg_roles o ON o.oid = n.nspowner
        JOIN pg_roles l ON l.rolname = session_user AND l.oid <> o.oid
        CROSS JOIN (
            SELECT CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET' ELSE 'MEMBER' END
        ) s (word)
        WHERE n.nspname = 'recstore_private' AND (pg_has_role(l.oid, o.oid, s.word) OR pg_has_role(l.oid, o.oid, 'USAGE'))
    ) m
    """  # noqa: S608


OWNER = _owner("false")
"""Statement for a session."""

LOCAL_OWNER = _owner("true")
"""Statement that lasts until the end of the transaction."""

JSON = partial(json.dumps, ensure_ascii=False)
"""Writer of JSON. A database in SQL_ASCII refuses escapes of letters beyond ASCII."""

STARTUP = {
    "search_path": SEARCH_PATH.replace(" ", ""),
    "default_transaction_deferrable": "off",  # a deferrable session waits before its first statement
    "quote_all_identifiers": "off",  # ADBC reads the names of functions
    "statement_timeout": "0",
}
"""Settings for the start of a session, before `SETTINGS` runs."""

PRELUDE = (
    f"SET search_path = {SEARCH_PATH}; SET default_transaction_deferrable = off;"
    f" BEGIN; SET LOCAL statement_timeout = 0; {SETTINGS}; COMMIT"
)
"""What a session runs first: several statements, and no parameter."""


def use_settings(connection: psycopg.Connection[Any], target: str) -> None:
    """Set recstore's settings in a new session, which `target` opened. Raises TransactionPooler, and sets nothing, where another
    client would get the session next."""
    if pooler.in_transaction_mode(connection, target):
        raise TransactionPooler
    connection.execute(PRELUDE)


def open_session(target: str, **options: Any) -> psycopg.Connection[Any]:
    """Connect in autocommit mode with recstore's settings. Raises TransactionPooler, psycopg.Error."""
    connection = psycopg.connect(target, autocommit=True, **options)
    try:
        use_settings(connection, target)
        set_json_dumps(JSON, connection)
    except BaseException:
        connection.close()
        raise
    return connection
