-- What a lookup is missing: an index, a privilege.

-- name: column_type
-- The type of a column of a recommender's view, and the collation in which it is compared, as SQL names it.
SELECT format_type(a.atttypid, a.atttypmod) AS type, nullif(a.attcollation, 0)::regcollation::text AS collation
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(view)s AND a.attname = %(column)s;

-- name: indexable
-- The table to index for a relation that a plan scans, whether it is partitioned, and the column's type and collation.
SELECT n.nspname AS schema, c.relname AS name, c.relkind = 'p' AS partitioned, format_type(a.atttypid, NULL) AS type,
    nullif(a.attcollation, 0)::regcollation::text AS collation
FROM pg_class s
JOIN pg_namespace m ON m.oid = s.relnamespace
JOIN pg_class c ON c.oid = coalesce(pg_partition_root(s.oid)::oid, s.oid)
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = %(column)s
WHERE m.nspname = %(schema)s AND s.relname = %(name)s;

-- name: missing_grants
-- Schemas that this role may not use, and relations that it may not read, whose names are in a message; the GRANTs without TO.
SELECT n.nspname AS name, format('GRANT USAGE ON SCHEMA %%I', n.nspname) AS grant
FROM pg_namespace n
WHERE strpos(%(message)s, n.nspname) > 0 AND NOT has_schema_privilege(n.oid, 'USAGE')
UNION ALL
SELECT c.relname, format('GRANT SELECT ON %%I.%%I', n.nspname, c.relname)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE strpos(%(message)s, c.relname) > 0 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND has_schema_privilege(n.oid, 'USAGE') AND NOT has_table_privilege(c.oid, 'SELECT')
ORDER BY 2;
