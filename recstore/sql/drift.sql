-- recstore's own schemas as they are, to compare with what the migrations make.

-- name: own_objects
-- Columns, constraints, indexes, views and functions, each with its definition in the server's words.
WITH ours AS (
    SELECT n.oid FROM pg_namespace n WHERE n.nspname IN ('recstore', 'recstore_private')
)
SELECT
    format('column %s of %s', a.attname, c.oid::regclass) AS object,
    concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attidentity, a.attnotnull, pg_get_expr(d.adbin, d.adrelid)) AS definition
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace IN (TABLE ours) AND c.relkind NOT IN ('i', 'S')
UNION ALL
SELECT format('constraint %s of %s', k.conname, k.conrelid::regclass), pg_get_constraintdef(k.oid)
FROM pg_constraint k
WHERE k.connamespace IN (TABLE ours) AND k.contype <> 'n'
UNION ALL
SELECT format('index %s', x.indexrelid::regclass), pg_get_indexdef(x.indexrelid)
FROM pg_index x
JOIN pg_class c ON c.oid = x.indexrelid
WHERE c.relnamespace IN (TABLE ours)
UNION ALL
SELECT format('view %s', c.oid::regclass), pg_get_viewdef(c.oid)
FROM pg_class c
WHERE c.relnamespace IN (TABLE ours) AND c.relkind = 'v'
UNION ALL
SELECT format('function %s', p.oid::regprocedure), pg_get_functiondef(p.oid)
FROM pg_proc p
WHERE p.pronamespace IN (TABLE ours) AND p.prokind IN ('f', 'p');
