-- Tables of lists: may one be written or replaced, and what would be lost with it.

-- name: list_table
-- The relation with this name, and whether this role may create a table in its schema. No row: the schema does not exist.
SELECT
    n.nspname AS schema,
    has_schema_privilege(n.oid, 'CREATE') AS may_create,
    c.oid,
    EXISTS (
        SELECT FROM pg_type y
        WHERE y.typnamespace = n.oid AND y.typname = %(table)s AND y.typrelid = 0
            AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = y.oid) -- which makes way
    ) AS type,
    (
        SELECT k.conname FROM pg_constraint k
        WHERE k.conrelid = c.oid AND k.contype = 'p' AND k.conname !~ '^recstore_lists_[0-9]+_.*pkey'
    ) AS key,
    c.relkind::text AS kind,
    c.relispartition AS partition,
    obj_description(c.oid, 'pg_class') AS comment,
    pg_get_userbyid(c.relowner) AS owner,
    pg_get_userbyid(c.relowner) = current_user AS owned,
    c.relrowsecurity OR c.relforcerowsecurity AS row_security
FROM pg_namespace n
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = %(table)s
WHERE n.nspname = %(schema)s;

-- name: list_table_publications
-- Publications of every table of the schema, which would send a new one to subscribers that do not have it.
SELECT p.pubname AS publication
FROM pg_publication p
WHERE p.puballtables
    OR EXISTS (
        SELECT FROM pg_publication_namespace pn JOIN pg_namespace n ON n.oid = pn.pnnspid
        WHERE pn.pnpubid = p.oid AND n.nspname = %(schema)s
    )
ORDER BY 1;

-- name: list_table_dependents
-- Objects that are lost with the old table, or prevent its removal: views, functions, foreign keys
-- of other tables, policies, triggers, publications; not the indexes and constraints that the new one gets.
SELECT DISTINCT
    CASE
        WHEN d.classid = 'pg_rewrite'::regclass
        THEN (SELECT pg_describe_object('pg_class'::regclass, w.ev_class, 0) FROM pg_rewrite w WHERE w.oid = d.objid)
        ELSE pg_describe_object(d.classid, d.objid, 0)
    END AS object
FROM pg_class t
JOIN pg_type y ON y.oid = t.reltype
JOIN pg_depend d
    ON (d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid)
    OR (d.refclassid = 'pg_type'::regclass AND d.refobjid IN (y.oid, y.typarray))
LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
WHERE t.oid = %(oid)s AND d.deptype IN ('n', 'a')
    AND NOT (
        d.classid = 'pg_class'::regclass
        AND (d.objid = t.oid OR EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = d.objid AND i.indrelid = t.oid))
    )
    AND NOT (k.conrelid IS NOT DISTINCT FROM t.oid AND k.contype IN ('p', 'n'))
ORDER BY 1;

-- name: list_table_indexes
-- Indexes other than the primary key, which a new table gets, too: `how` begins with USING.
SELECT
    c.oid,
    c.relname AS name,
    i.indisunique AS is_unique,
    substr(
        pg_get_indexdef(i.indexrelid),
        length(format('CREATE %%sINDEX %%I ON %%I.%%I ', CASE WHEN i.indisunique THEN 'UNIQUE ' END,
            c.relname, n.nspname, t.relname)) + 1
    ) AS how
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE i.indrelid = %(oid)s AND NOT i.indisprimary AND i.indisvalid
ORDER BY c.relname;

-- name: list_table_columns
SELECT
    a.attname AS name,
    format_type(a.atttypid, a.atttypmod)
        || CASE WHEN a.attcollation <> y.typcollation THEN ' COLLATE ' || quote_ident(o.collname) ELSE '' END AS type,
    col_description(a.attrelid, a.attnum) AS comment
FROM pg_attribute a
JOIN pg_type y ON y.oid = a.atttypid
LEFT JOIN pg_collation o ON o.oid = a.attcollation
WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum;

-- name: list_table_storage
-- Storage that differs from a new table's.
SELECT s.what
FROM pg_class c
LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
CROSS JOIN LATERAL (VALUES
    (c.relpersistence <> 'p', 'the option UNLOGGED'),
    (c.reloptions IS NOT NULL, 'the option ' || array_to_string(c.reloptions, ', ')),
    (c.relreplident <> 'd', 'a REPLICA IDENTITY of its own'),
    (t.oid IS NOT NULL, 'the tablespace ' || quote_ident(t.spcname)),
    (EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid), 'a table that it inherits from')
) s (is_so, what)
WHERE c.oid = %(oid)s AND s.is_so;

-- name: list_table_column_grants
-- Privileges on single columns.
SELECT
    CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee,
    a.privilege_type || ' (' || quote_ident(c.attname) || ')' AS privilege_type,
    a.is_grantable
FROM pg_attribute c
CROSS JOIN LATERAL aclexplode(c.attacl) a
WHERE c.attrelid = %(oid)s AND c.attnum > 0 AND NOT c.attisdropped;
