-- Completions for the shell: a text and its meaning. Reads only views that `recstore db grant` opens.

-- name: complete_recommenders
SELECT r.name AS text, '' AS meaning FROM recstore.recommenders r ORDER BY r.name;

-- name: complete_generations
SELECT g.generation::text AS text, g.state AS meaning
FROM recstore.generations g
WHERE g.recommender = %(name)s AND g.state IN ('previous', 'ready', 'withheld')
ORDER BY g.generation DESC;

-- name: complete_runs
SELECT r.run::text AS text, r.job || ' of ' || r.recommender || ', ' || r.state AS meaning
FROM recstore.runs r
ORDER BY r.run DESC
LIMIT 30;

-- name: complete_open_requests
SELECT q.request::text AS text, q.job || ' of ' || q.recommender || ', ' || q.state AS meaning
FROM recstore.requests q
WHERE q.state IN ('waiting', 'sent')
ORDER BY q.request DESC;

-- name: complete_studies
SELECT s.study::text AS text, s.state || ', ' || s.metric AS meaning
FROM recstore.studies s
WHERE s.recommender = %(name)s
ORDER BY s.study DESC;

-- name: complete_roles
SELECT r.rolname AS text, CASE WHEN r.rolcanlogin THEN 'may log in' ELSE 'a group' END AS meaning
FROM pg_roles r
WHERE r.rolname !~ '^pg_'
ORDER BY r.rolname;

-- name: complete_tables
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS text, '' AS meaning
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND n.nspname !~ '^(pg_|information_schema$|recstore)'
    AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
    AND coalesce(obj_description(n.oid, 'pg_namespace'), '') NOT LIKE 'Recommendations by recstore: %%'
ORDER BY 1;

-- name: complete_columns
SELECT a.attname::text AS text, format_type(a.atttypid, a.atttypmod) AS meaning
FROM pg_attribute a
WHERE a.attrelid = to_regclass(%(table)s) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum;
