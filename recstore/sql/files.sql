-- Tables that files are loaded into, and this role's privileges.

-- name: name_parts
SELECT parse_ident(%(table)s) AS parts, current_schemas(false) AS path;

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
WHERE c.oid = to_regclass(%(table)s);

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
-- A type by its name: NULL if it is unknown, an error if it is no name of a type.
SELECT to_regtype(%(type)s)::oid AS oid, format_type(to_regtype(%(type)s), NULL) AS type, t.typcategory = 'S' AS textual
FROM (SELECT) one LEFT JOIN pg_type t ON t.oid = to_regtype(%(type)s)
WHERE t.typtype IS DISTINCT FROM 'p';

-- name: input_errors
-- Texts of an array that the type refuses, with the server's message for each.
SELECT v.position, e.message
FROM unnest(%(values)s::text[]) WITH ORDINALITY v (value, position), LATERAL pg_input_error_info(v.value, %(type)s) e
WHERE e.message IS NOT NULL;
