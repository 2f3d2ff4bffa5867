-- Tables that files are loaded into, and this role's privileges.

-- name: name_parts
-- Runs under the application's search_path, so it names pg_catalog.
SELECT pg_catalog.parse_ident(%(table)s) AS parts, pg_catalog.current_schemas(false) AS path,
    pg_catalog.to_regclass(%(table)s)::pg_catalog.oid AS oid;

-- name: keywords
-- Words that must be quoted to name a table or column.
SELECT k.word FROM pg_get_keywords() k WHERE k.catcode <> 'U';

-- name: target
SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, row_security_active(c.oid) AS row_security,
    has_table_privilege(c.oid, 'INSERT') AS may_insert, has_table_privilege(c.oid, 'DELETE') AS may_delete,
    ARRAY(
        SELECT k.conrelid::regclass::text
        FROM pg_constraint k
        WHERE k.confrelid = c.oid AND k.contype = 'f' AND k.confdeltype IN ('c', 'n', 'd')
    ) AS cascading,
    ARRAY(
        SELECT i.inhrelid::regclass::text
        FROM pg_inherits i
        WHERE i.inhparent = c.oid AND c.relkind = 'r'
    ) AS inheriting
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = %(oid)s;

-- name: target_columns
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, t.typcategory = 'S' AS textual,
    a.attnotnull OR t.typnotnull AS required, a.attgenerated <> '' AS generated,
    a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL AS has_default,
    pg_get_serial_sequence(a.attrelid::regclass::text, a.attname) AS sequence
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum;

-- name: may_create
SELECT n.nspname AS schema, has_schema_privilege(n.oid, 'CREATE') AS may_create
FROM pg_namespace n
WHERE n.nspname = %(schema)s;

-- name: known_type
-- A type of a column.
SELECT t.oid, format_type(t.oid, NULL) AS type, t.typcategory = 'S' AS textual
FROM pg_type t
WHERE t.oid = %(oid)s AND t.typtype <> 'p';

-- name: kind
-- The kind of a staged value `v`: the type that takes it in the form in which that type is written. A code is a whole number
-- that no number keeps; a big one is beyond bigint. Cheap tests come first: reading a word as a date costs 30 microseconds.
CASE
    WHEN length(v) = 36 AND {is_uuid} THEN 'uuid'
    WHEN ascii(v) NOT BETWEEN 43 AND 57  -- begins with neither digit, sign nor point
        THEN CASE WHEN length(v) <= 5 AND lower(v) IN ('true', 'false', 't', 'f') THEN 'boolean' ELSE 'text' END
    WHEN length(v) > 300 THEN 'text'
    WHEN v LIKE '____-__-__' THEN CASE WHEN {is_date} THEN 'date' ELSE 'text' END
    WHEN v LIKE '____-__-__ __:__%' OR v LIKE '____-__-__T__:__%' THEN CASE
        WHEN NOT {is_timestamptz} THEN 'text'
        WHEN v ~ '^.{11}([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,6}0{0,3})?)?$' THEN 'timestamp'
        WHEN v ~ '^.{11}([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,6}0{0,3})?)? ?(Z|UTC|GMT|[+-][0-9]{2}(:?[0-9]{2})?)$'
            THEN 'timestamptz'
        ELSE 'text' END
    WHEN {is_integer} AND v::integer::text = v THEN 'integer'
    WHEN {is_bigint} AND v::bigint::text = v THEN 'bigint'
    WHEN NOT {is_numeric} THEN 'text'
    WHEN v LIKE '%.%' AND v::numeric::text = v THEN 'numeric'
    WHEN v ~ '^-?[1-9][0-9]*$' THEN 'big'
    WHEN v ~ '^[+-]?[0-9]+$' THEN 'code'
    WHEN v ~ '^-?((0|[1-9][0-9]{0,200})([.][0-9]{0,100})?|[.][0-9]{1,100})([eE][+-]?[0-9]{1,2})?$' THEN 'numeric'
    ELSE 'text' END

-- name: staged_kinds
-- The kinds of a staged column's values. OFFSET 0 computes each kind once.
SELECT kind, count(*)
FROM (SELECT v, {kind} AS kind FROM (SELECT btrim({value}) AS v FROM pg_temp.recstore_load) t OFFSET 0) k
WHERE v IS NOT NULL
GROUP BY kind;

-- name: staged_numbers
-- The numbers of a staged column: whether a double rounds one, all are whole, and all have three digits after the point.
SELECT bool_or(CASE WHEN length(v) > 300 THEN true WHEN length(v) > 15 THEN v::float8::text::numeric <> v::numeric ELSE false END)
    AS exact, bool_and(v::numeric = trunc(v::numeric)) AS whole, bool_and(v LIKE '%.___' AND length(v) < 8 AND v NOT LIKE '0%')
    AS thousands
FROM (SELECT btrim({value}) AS v FROM pg_temp.recstore_load WHERE {is_number} OFFSET 0) n;

-- name: misfit
-- What the server says of a value that a type does not take: on PostgreSQL 15, and for types that only know how to raise.
CREATE OR REPLACE FUNCTION {function}(value text) RETURNS text LANGUAGE plpgsql STABLE STRICT AS $$
DECLARE
    taken {type};
BEGIN
    taken := value;
    RETURN NULL;
EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
    RETURN SQLERRM;
END $$;
