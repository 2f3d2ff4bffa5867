-- An application's own tables.

-- name: readable_columns
-- A row for each column of every table and view that this role may read, except PostgreSQL's, recstore's and tables of lists:
-- its type (of a domain, the base type); unique alone, part of a unique key, first in an index; numbered by the server (identity,
-- a sequence, a random uuid); the table that it references.
SELECT
    format('%%I.%%I', n.nspname, c.relname) AS table_name,
    c.relkind IN ('v', 'm') AS is_view,
    greatest(
        CASE WHEN c.relkind = 'p'
            THEN (SELECT sum(p.reltuples) FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhrelid WHERE i.inhparent = c.oid)
            ELSE c.reltuples
        END, 0)::bigint AS rows,
    a.attname::text AS name,
    format_type(a.atttypid, a.atttypmod) AS type,
    coalesce(nullif(t.typbasetype, 0), t.oid)::integer AS type_oid,
    EXISTS (
        SELECT FROM pg_index x
        WHERE x.indrelid = c.oid AND x.indisunique AND x.indnkeyatts = 1 AND x.indkey[0] = a.attnum AND x.indpred IS NULL
    ) AS is_key,
    EXISTS (
        SELECT FROM pg_index x
        WHERE x.indrelid = c.oid AND x.indisunique AND x.indnkeyatts > 1
            AND a.attnum = ANY (x.indkey::smallint[])
    ) AS in_key,
    EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisvalid AND x.indkey[0] = a.attnum) AS begins_index,
    a.attidentity <> '' OR coalesce(
        (
            SELECT pg_get_expr(d.adbin, d.adrelid) ~ 'nextval\(|uuid\w*\('
            FROM pg_attrdef d
            WHERE d.adrelid = c.oid AND d.adnum = a.attnum AND a.attgenerated = ''
        ), false) AS numbered,
    (
        SELECT format('%%I.%%I', fn.nspname, fc.relname)
        FROM pg_constraint k
        JOIN pg_class fc ON fc.oid = k.confrelid
        JOIN pg_namespace fn ON fn.oid = fc.relnamespace
        WHERE k.conrelid = c.oid AND k.contype = 'f' AND k.conkey = ARRAY[a.attnum]
        ORDER BY k.conname
        LIMIT 1
    ) AS refers_to
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
    AND n.nspname <> 'information_schema' AND n.nspname !~ '^(pg_|recstore)'
    AND coalesce(obj_description(n.oid, 'pg_namespace'), '') NOT LIKE 'Recommendations by recstore: %%'
    AND coalesce(obj_description(c.oid, 'pg_class'), '') NOT LIKE 'Made by recstore: %%'
    AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
    )
    AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
ORDER BY n.nspname, c.relname, a.attnum;

-- name: numbers_rows
-- Whether a table's column numbers its rows: an identity, a sequence, or alone the primary key; of a view, the query behind it.
SELECT a.attidentity <> '' OR EXISTS (
    SELECT FROM pg_attrdef d
    WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND pg_get_expr(d.adbin, d.adrelid) ~ 'nextval\('
) OR EXISTS (
    SELECT FROM pg_index x
    WHERE x.indrelid = a.attrelid AND x.indisprimary AND x.indnkeyatts = 1 AND x.indkey[0] = a.attnum
) AS found, a.attname::text AS name, a.attrelid::regclass::text AS relation,
    CASE c.relkind
        WHEN 'v' THEN format('SELECT s.%%I FROM (%%s) s', a.attname, rtrim(pg_get_viewdef(c.oid), ';'))
    END AS behind
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
WHERE a.attrelid = %(relation)s AND a.attnum = %(column)s;
