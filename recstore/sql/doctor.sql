-- Queries of `recstore doctor`. They change nothing.

-- name: doctor_self
-- The current role, and which of recstore's own tables it can read.
SELECT
    current_user::text AS role,
    current_database()::text AS database,
    coalesce(has_schema_privilege(e.extnamespace, 'USAGE'), false) AS vector_usable,
    n.oid IS NOT NULL AS private,
    coalesce(
        has_schema_privilege(n.oid, 'USAGE')
        AND (
            SELECT bool_and(has_table_privilege(c.oid, 'SELECT')) AND count(*) > 0
            FROM pg_class c
            WHERE c.relnamespace = n.oid AND c.relkind = 'r'
        ),
        false
    ) AS readable
FROM (SELECT) nothing
LEFT JOIN pg_namespace n ON n.nspname = 'recstore_private'
LEFT JOIN pg_extension e ON e.extname = 'vector';

-- name: doctor_recommender_schemas
-- Schemas that look like a recommender's, from the catalogs alone, which any role may read.
SELECT n.nspname AS name
FROM pg_namespace n
WHERE EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = '_generation' AND c.relkind = 'v')
    AND EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = '_items' AND c.relkind = 'p')
    AND EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = n.oid AND p.proname = 'similar_items')
ORDER BY n.nspname;

-- name: doctor_readers
-- Roles with grants in a recommender's schema, and whether these show people.
WITH granted AS (
    SELECT a.grantee, false AS people
    FROM pg_namespace n
    CROSS JOIN LATERAL aclexplode(n.nspacl) a
    WHERE n.nspname = %(schema)s AND a.grantee <> n.nspowner
    UNION ALL
    SELECT a.grantee, c.relname ~ '^(user_vectors|interactions|exclusions|_users|_seen)'
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL aclexplode(c.relacl) a
    WHERE n.nspname = %(schema)s AND a.grantee <> c.relowner
)
SELECT r.rolname::text AS role, bool_or(g.people) AS people
FROM granted g
JOIN pg_roles r ON r.oid = g.grantee
GROUP BY 1
ORDER BY 1;

-- name: doctor_server
SELECT
    current_setting('server_version') AS version,
    current_setting('server_version_num')::integer / 10000 AS major,
    pg_is_in_recovery() AS standby,
    current_setting('track_activities')::boolean AS track_activities,
    current_setting('dynamic_shared_memory_type') AS dynamic_shared_memory_type,
    current_setting('maintenance_work_mem') AS maintenance_work_mem,
    current_setting('max_parallel_maintenance_workers')::integer AS maintenance_workers,
    current_setting('max_parallel_workers')::integer AS parallel_workers,
    current_setting('max_worker_processes')::integer AS worker_processes,
    current_setting('max_locks_per_transaction')::integer AS locks_per_transaction;

-- name: doctor_vector_versions
-- Versions of pgvector that the server could install.
SELECT v.version
FROM pg_available_extension_versions v
WHERE v.name = 'vector';

-- name: doctor_search_path
-- Is an unqualified type or operator of this schema found?
SELECT
    %(schema)s OPERATOR(pg_catalog.=) ANY (pg_catalog.current_schemas(true)::pg_catalog.text[]) AS found,
    pg_catalog.current_setting('search_path') AS search_path;

-- name: doctor_path
SELECT pg_catalog.current_schemas(false)::pg_catalog.text[] AS path;

-- name: doctor_owner
-- The owner of recstore's own schema, whether this role has its rights, and whether it may use any of these schemas.
SELECT
    pg_get_userbyid(n.nspowner)::text AS owner,
    pg_has_role(n.nspowner, 'USAGE') AS ours,
    (SELECT bool_or(has_schema_privilege(m.oid, 'USAGE')) FROM pg_namespace m WHERE m.nspname = ANY (%(schemas)s)) AS admitted
FROM pg_namespace n
WHERE n.nspname = 'recstore_private';

-- name: doctor_watchers
-- Roles that may use recstore's schema, by a grant.
SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END AS role
FROM pg_namespace n
CROSS JOIN LATERAL aclexplode(n.nspacl) a
WHERE n.nspname = 'recstore' AND a.grantee <> n.nspowner
ORDER BY 1;

-- name: doctor_foreign_objects
-- Tables, views and functions in these schemas whose owner's rights this role does not have.
SELECT o.object, pg_get_userbyid(o.owner)::text AS owner
FROM (
    SELECT c.oid::regclass::text AS object, c.relowner AS owner
    FROM pg_class c
    WHERE c.relnamespace IN (SELECT n.oid FROM pg_namespace n WHERE n.nspname = ANY (%(schemas)s)) AND c.relkind IN ('r', 'p', 'v')
    UNION ALL
    SELECT p.oid::regprocedure::text, p.proowner
    FROM pg_proc p
    WHERE p.pronamespace IN (SELECT n.oid FROM pg_namespace n WHERE n.nspname = ANY (%(schemas)s))
) o
WHERE NOT pg_has_role(o.owner, 'USAGE')
ORDER BY 1;

-- name: doctor_rights
SELECT
    has_database_privilege(current_database(), 'CREATE') AS create_schemas,
    pg_has_role('pg_read_all_stats', 'USAGE') AS read_all_stats;

-- name: doctor_writable_path
-- Schemas of the search path in which roles other than this one and the schema's owner may create objects. Runs under the
-- application's search_path, so it names pg_catalog.
SELECT n.nspname AS schema,
    pg_catalog.array_agg(
        DISTINCT CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(a.grantee) END
    ) AS roles
FROM pg_catalog.pg_namespace n
CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) a
WHERE n.nspname OPERATOR(pg_catalog.=) ANY (pg_catalog.current_schemas(false))
    AND a.privilege_type OPERATOR(pg_catalog.=) 'CREATE'::pg_catalog.text
    AND a.grantee OPERATOR(pg_catalog.<>) n.nspowner
    AND a.grantee OPERATOR(pg_catalog.<>) (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) CURRENT_USER)
GROUP BY n.nspname
ORDER BY n.nspname;

-- name: doctor_settings_of_role
-- Settings of all roles or of this one that may interrupt a long job.
SELECT s.name, s.reset_val AS value, s.reset_val NOT IN ('0', '-1', 'off', 'on') AS is_set
FROM pg_settings s
WHERE s.name = ANY (%(names)s);

-- name: doctor_collations
-- Ids of the source and of the application's other SELECTs whose collation takes different texts for equal.
SELECT c.relname AS view, a.attname AS column, l.collname AS collation
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname IN ('user_id', 'item_id')
JOIN pg_collation l ON l.oid = a.attcollation AND NOT l.collisdeterministic
WHERE n.nspname = %(schema)s AND c.relname IN ('interactions', 'candidates', '_fallback', 'exclusions')
ORDER BY 1, 2 DESC;

-- name: doctor_missing_privileges
-- A recommender's own objects that a role may not read or call; `people`: also the objects of users that recommend() reads.
SELECT 'schema ' || n.nspname AS object
FROM pg_namespace n
WHERE n.nspname = %(schema)s AND NOT has_schema_privilege(%(role)s, n.oid, 'USAGE')
UNION ALL
SELECT c.relname
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relkind IN ('v', 'r', 'p')
    AND (
        c.relname IN ('_generation', '_weighting', 'item_vectors', 'candidates')
        OR c.relname ~ '^_(items|fold_in|basis)(_old)?(_[0-9]+)?$'
        OR %(people)s AND (c.relname IN ('user_vectors', 'interactions', '_fallback', 'exclusions') OR c.relname ~ '^_users(_old)?(_[0-9]+)?$')
    )
    AND (
        c.relname !~ '^_(items|users|seen|fold_in|basis|refreshed)(_old)?_[0-9]+$'  -- tables of generations that are attached
        OR EXISTS (
            SELECT
            FROM pg_inherits i
            JOIN pg_class t ON t.oid = i.inhrelid
            WHERE NOT i.inhdetachpending AND t.relnamespace = n.oid
                AND t.relname = '_items_' || substring(c.relname FROM '[0-9]+$')
        )
    )
    AND NOT has_table_privilege(%(role)s, c.oid, 'SELECT')
UNION ALL
SELECT DISTINCT p.proname || '()'
FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = %(schema)s AND NOT has_function_privilege(%(role)s, p.oid, 'EXECUTE') AND (%(people)s OR NOT p.prosecdef)
    AND p.proname <> 'forget_user'
ORDER BY 1;

-- name: doctor_may_use
SELECT has_schema_privilege(%(role)s, %(schema)s, 'USAGE') AS yes;

-- name: publications_of_schemas
-- Publications of these schemas or of their tables.
SELECT p.pubname AS publication, n.nspname AS schema, NULL AS relation
FROM pg_publication p
JOIN pg_publication_namespace pn ON pn.pnpubid = p.oid
JOIN pg_namespace n ON n.oid = pn.pnnspid
WHERE n.nspname = ANY (%(schemas)s)
UNION ALL
SELECT p.pubname, n.nspname, c.relname
FROM pg_publication p
JOIN pg_publication_rel pr ON pr.prpubid = p.oid
JOIN pg_class c ON c.oid = pr.prrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY (%(schemas)s)
ORDER BY 1, 2, 3;

-- name: doctor_publication_options
-- Options of a publication, as in CREATE PUBLICATION; PostgreSQL 18 has one for generated columns.
SELECT concat_ws(
    ', ',
    'publish = ' || quote_literal(
        concat_ws(
            ', ',
            CASE WHEN p.pubinsert THEN 'insert' END,
            CASE WHEN p.pubupdate THEN 'update' END,
            CASE WHEN p.pubdelete THEN 'delete' END,
            CASE WHEN p.pubtruncate THEN 'truncate' END
        )
    ),
    'publish_via_partition_root = ' || p.pubviaroot,
    CASE to_jsonb(p) ->> 'pubgencols' WHEN 's' THEN 'publish_generated_columns = stored' END
) AS options
FROM pg_publication p
WHERE p.pubname = %(name)s;

-- name: application_schemas
-- Schemas with tables of neither the server nor an extension, without these schemas.
SELECT n.nspname AS name
FROM pg_namespace n
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND n.nspname <> ALL (%(without)s)
    AND EXISTS (
        SELECT FROM pg_class c
        WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
            AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    )
ORDER BY n.nspname;

-- name: doctor_live
-- The live generation, and the warnings of the newest retrain or reindex.
SELECT
    p.generation,
    g.items,
    g.users,
    g.factors,
    (g.snapshot ->> 'pairs')::bigint AS pairs,
    g.seen_published,
    (g.training ->> 'solved_weight') IS NOT NULL AS folds_in,
    g.recommend_ef,
    g.similar_ef,
    g.users_ef,
    coalesce(u.warnings, '[]') AS warnings
FROM recstore_private.pointers p
LEFT JOIN recstore_private.generations g ON g.generation = p.generation
LEFT JOIN LATERAL (
    SELECT u.warnings
    FROM recstore_private.runs u
    WHERE u.recommender_id = p.recommender_id AND u.job IN ('retrain', 'reindex') AND u.finished_at IS NOT NULL
    ORDER BY u.run DESC
    LIMIT 1
) u ON true
WHERE p.recommender_id = %(recommender_id)s;

-- name: doctor_long_transactions
-- Transactions in this database, except recstore's own, that are older than so many seconds, as far as this role may see.
SELECT a.pid, a.usename::text AS role, coalesce(a.application_name, '') AS application_name, a.state, a.xact_start AS since,
    extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds
FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
    AND a.backend_type NOT LIKE 'autovacuum%%' AND coalesce(a.application_name, '') NOT LIKE 'recstore%%'
    AND a.xact_start < clock_timestamp() - make_interval(secs => %(seconds)s)
ORDER BY a.xact_start;

-- name: doctor_hidden_transactions
-- Sessions in a transaction whose start this role may not see.
SELECT count(DISTINCT l.pid) AS sessions
FROM pg_locks l
JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'virtualxid' AND l.granted AND l.pid <> pg_backend_pid()
    AND a.datname = current_database() AND a.xact_start IS NULL AND a.backend_type IS NULL;

-- name: doctor_prepared_transactions
SELECT p.gid, p.owner::text AS role, p.prepared AS since,
    extract(epoch FROM clock_timestamp() - p.prepared)::float8 AS seconds
FROM pg_prepared_xacts p
WHERE p.database = current_database()
ORDER BY p.prepared;

-- name: doctor_flip_holders
-- Sessions that the next flip waits for, and the start of their transaction as far as this role may see: those with a lock on
-- the parents. If the barrier is cleared, none; if it is invalidated, only the transactions noted then.
SELECT l.pid, a.usename::text AS role, coalesce(a.application_name, '') AS application_name, a.xact_start AS since,
    extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds
FROM pg_locks l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
    AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
    AND l.relation IN (SELECT to_regclass(p.name) FROM unnest(%(parents)s::text[]) p (name))
    AND coalesce(a.backend_type, '') NOT IN ('autovacuum worker', 'parallel worker')
    AND (
        NOT EXISTS (  -- the next generation is not attached yet
            SELECT FROM recstore_private.generations g
            WHERE g.recommender_id = %(recommender_id)s AND g.state IN ('attached', 'building')
        )
        OR EXISTS (
            SELECT
            FROM recstore_private.generations g
            JOIN recstore_private.pointers p ON p.recommender_id = g.recommender_id
            WHERE g.recommender_id = %(recommender_id)s AND g.state IN ('attached', 'building', 'ready')
                AND g.generation > coalesce(p.generation, 0)
                AND CASE g.barrier
                    WHEN 'cleared' THEN false
                    WHEN 'invalidated' THEN coalesce(g.barrier_transactions ? l.virtualtransaction, true)
                    ELSE true
                END
        )
    )
GROUP BY l.pid, a.usename, a.application_name, a.xact_start
ORDER BY l.pid;

-- name: doctor_slots
-- Replication slots that are not in use, and keep old rows or old WAL.
SELECT s.slot_name::text AS name, s.slot_type AS type, s.xmin IS NOT NULL AS holds_rows
FROM pg_replication_slots s
WHERE NOT s.active
ORDER BY s.slot_name;

-- name: doctor_standbys
SELECT count(*) AS standbys FROM pg_stat_replication r;

-- name: doctor_dead_runs
-- Runs whose process is gone, and runs past their deadline whose session still holds the lock.
SELECT u.run, u.job, u.started_at, u.current_state = 'abandoned' AS abandoned, a.pid
FROM recstore_private.current_runs u
LEFT JOIN pg_stat_activity a ON a.application_name = 'recstore:run:' || u.run AND a.datname = current_database()
WHERE u.recommender_id = %(recommender_id)s AND u.state = 'running'
    AND (u.current_state = 'abandoned' OR u.deadline < clock_timestamp())
ORDER BY u.run;

-- name: doctor_lock_without_run
-- Idle sessions that hold a recommender's lock of trainings or of lists, without a run in progress.
SELECT l.pid, a.application_name, l.classid = %(lists)s AS lists
FROM pg_locks l
JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
    AND l.classid IN (%(trainings)s, %(lists)s) AND l.objid = %(recommender_id)s
    AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
    AND a.state = 'idle' AND a.state_change < clock_timestamp() - interval '1 second'
    AND NOT EXISTS (
        SELECT
        FROM recstore_private.runs u
        WHERE u.recommender_id = %(recommender_id)s AND u.state = 'running' AND (u.job = 'lists') = (l.classid = %(lists)s)
    );

-- name: doctor_generations
-- Generations that are neither live, nor kept, nor empty: half built, being removed, or waiting; idle when no run is at work.
SELECT g.generation, g.state, g.reason, g.created_at, g.ready_at, g.barrier_transactions AS transactions,
    g.generation > coalesce(p.generation, 0) AS newer,
    p.held_at IS NOT NULL AS held,
    NOT EXISTS (SELECT FROM recstore_private.locked_recommenders l WHERE l.recommender_id = g.recommender_id::oid) AS idle
FROM recstore_private.generations g
JOIN recstore_private.pointers p ON p.recommender_id = g.recommender_id
WHERE g.recommender_id = %(recommender_id)s AND g.state IN ('building', 'pruning', 'ready')
ORDER BY g.generation;

-- name: doctor_invalid_indexes
-- Invalid indexes of a schema that no session is building.
SELECT i.relname AS name, t.relname AS table
FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_class t ON t.oid = x.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE n.nspname = %(schema)s AND NOT x.indisvalid AND t.relkind = 'r'
    AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index b WHERE b.index_relid = x.indexrelid)
    AND NOT EXISTS (SELECT FROM recstore_private.locked_recommenders l WHERE l.recommender_id = %(recommender_id)s::oid)
ORDER BY i.relname;

-- name: doctor_pending_detaches
SELECT p.relname AS parent, c.relname AS partition
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
JOIN pg_class p ON p.oid = i.inhparent
JOIN pg_namespace n ON n.oid = p.relnamespace
WHERE n.nspname = %(schema)s AND i.inhdetachpending
    AND NOT EXISTS (SELECT FROM recstore_private.locked_recommenders l WHERE l.recommender_id = %(recommender_id)s::oid)
ORDER BY c.relname;

-- name: doctor_stray_tables
-- Tables of generations that no longer exist.
SELECT c.relname AS name
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relkind = 'r' AND c.relname ~ '^_(items|users|seen|fold_in|basis|refreshed)_[0-9]{1,18}$'
    AND NOT EXISTS (SELECT FROM recstore_private.locked_recommenders l WHERE l.recommender_id = %(recommender_id)s::oid)
    AND NOT EXISTS (
        SELECT FROM recstore_private.generations g
        WHERE g.recommender_id = %(recommender_id)s AND g.state <> 'pruned'
            AND g.generation = substring(c.relname FROM '[0-9]+$')::bigint
    )
ORDER BY c.relname;

-- name: doctor_waiting_requests
-- Requests that were due so many seconds ago and that no run has begun, although their recommender is idle.
SELECT q.request, q.job,
    extract(epoch FROM clock_timestamp() - greatest(q.requested_at, q.not_before))::float8 AS seconds
FROM recstore_private.requests q
JOIN recstore_private.recommenders r ON r.name = q.recommender
WHERE q.recommender = %(recommender)s AND q.state IN ('waiting', 'sent')
    AND greatest(q.requested_at, q.not_before) < clock_timestamp() - make_interval(secs => %(seconds)s)
    AND NOT EXISTS (SELECT FROM recstore_private.locked_recommenders l WHERE l.recommender_id = r.id::oid)
ORDER BY q.request;

-- name: doctor_background
-- Recommenders and requests that need a worker.
SELECT
    (SELECT count(*) FROM recstore_private.recommenders r WHERE r.definition -> 'schedule' ->> 'cron' IS NOT NULL) AS scheduled,
    (SELECT count(*) FROM recstore_private.requests q WHERE q.state IN ('waiting', 'sent')) AS waiting;
