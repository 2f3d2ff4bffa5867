-- Run-time SQL of recstore's own tables. Parameters are %(name)s; statements on a recommender's objects, whose names vary,
-- are next to the code that runs them.

-- name: vector_extension
-- Where pgvector is.
SELECT n.nspname AS schema, e.extversion AS version
FROM pg_extension e
JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'vector';

-- name: name_checks
-- What stands against a name: a reserved word, or a schema that exists.
SELECT
    EXISTS (SELECT FROM pg_get_keywords() k WHERE k.word = %(name)s AND k.catcode IN ('R', 'T')) AS reserved,
    EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = %(name)s) AS schema_exists;

-- name: insert_recommender
INSERT INTO recstore_private.recommenders
    (name, definition, user_type, item_type, vector_type, dimensions, objects_version)
VALUES
    (%(name)s, %(definition)s, %(user_type)s, %(item_type)s, %(vector_type)s, %(dimensions)s, %(objects_version)s)
RETURNING id;

-- name: insert_pointer
INSERT INTO recstore_private.pointers (recommender_id) VALUES (%(recommender_id)s);

-- name: select_recommender
SELECT r.id, r.name, r.definition, r.user_type, r.item_type, r.vector_type, r.dimensions, r.objects_version,
    r.object_digests, n.nspname AS vector_schema
FROM recstore_private.recommenders r
JOIN pg_extension e ON e.extname = 'vector'
JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE r.name = %(name)s;

-- name: lock_recommender
-- Whoever changes a recommender's objects holds this until the end of its transaction.
SELECT r.object_digests, r.objects_version
FROM recstore_private.recommenders r
WHERE r.id = %(recommender_id)s
FOR NO KEY UPDATE;

-- name: installed_objects
-- Which of a recommender's views, functions and types there are.
SELECT 'view ' || c.relname AS name FROM pg_class c
WHERE c.relnamespace = to_regnamespace(%(quoted)s) AND c.relkind = 'v'
UNION
SELECT 'type ' || c.relname FROM pg_class c
WHERE c.relnamespace = to_regnamespace(%(quoted)s) AND c.relkind = 'c'
UNION
SELECT 'function ' || p.proname FROM pg_proc p
WHERE p.pronamespace = to_regnamespace(%(quoted)s);

-- name: select_recommender_names
SELECT r.name FROM recstore_private.recommenders r ORDER BY r.name;

-- name: select_recommenders
SELECT s.*, r.definition
FROM recstore.status s
JOIN recstore.recommenders r ON r.name = s.recommender
ORDER BY s.recommender;

-- name: update_definition
UPDATE recstore_private.recommenders SET definition = %(definition)s WHERE id = %(recommender_id)s;

-- name: update_storage
UPDATE recstore_private.recommenders
SET vector_type = %(vector_type)s, dimensions = %(dimensions)s
WHERE id = %(recommender_id)s;

-- name: update_objects
UPDATE recstore_private.recommenders
SET objects_version = %(objects_version)s, object_digests = %(object_digests)s
WHERE id = %(recommender_id)s;

-- name: delete_recommender
DELETE FROM recstore_private.recommenders WHERE id = %(recommender_id)s;

-- name: schema_dependents
-- What a DROP SCHEMA .. CASCADE would take along: objects elsewhere (views, functions, column defaults, constraints, policies,
-- ..) that depend on objects of the schema, and objects in the schema that recstore did not make.
WITH ours AS (
    SELECT 'pg_class'::regclass::oid AS classid, c.oid AS objid FROM pg_class c
    WHERE c.relnamespace = to_regnamespace(%(quoted)s)
    UNION ALL
    SELECT 'pg_proc'::regclass, p.oid FROM pg_proc p WHERE p.pronamespace = to_regnamespace(%(quoted)s)
    UNION ALL
    SELECT 'pg_type'::regclass, t.oid FROM pg_type t WHERE t.typnamespace = to_regnamespace(%(quoted)s)
),
depending AS (
    SELECT
        d.classid,
        d.objid,
        CASE d.classid
            WHEN 'pg_rewrite'::regclass THEN (SELECT w.ev_class FROM pg_rewrite w WHERE w.oid = d.objid)
            WHEN 'pg_attrdef'::regclass THEN (SELECT a.adrelid FROM pg_attrdef a WHERE a.oid = d.objid)
            WHEN 'pg_constraint'::regclass THEN (SELECT n.conrelid FROM pg_constraint n WHERE n.oid = d.objid)
            WHEN 'pg_policy'::regclass THEN (SELECT p.polrelid FROM pg_policy p WHERE p.oid = d.objid)
            WHEN 'pg_trigger'::regclass THEN (SELECT t.tgrelid FROM pg_trigger t WHERE t.oid = d.objid)
            WHEN 'pg_statistic_ext'::regclass THEN (SELECT s.stxrelid FROM pg_statistic_ext s WHERE s.oid = d.objid)
            WHEN 'pg_publication_rel'::regclass THEN (SELECT p.prrelid FROM pg_publication_rel p WHERE p.oid = d.objid)
        END AS relation
    FROM pg_depend d
    JOIN ours o ON o.classid = d.refclassid AND o.objid = d.refobjid
    WHERE d.deptype IN ('n', 'a')
)
SELECT DISTINCT
    CASE
        WHEN d.classid = 'pg_rewrite'::regclass THEN pg_describe_object('pg_class'::regclass, d.relation, 0)
        ELSE pg_describe_object(d.classid, d.objid, 0)
    END AS object
FROM depending d
WHERE (d.classid, d.objid) NOT IN (SELECT o.classid, o.objid FROM ours o)
    AND coalesce(d.relation, 0) NOT IN (SELECT o.objid FROM ours o WHERE o.classid = 'pg_class'::regclass)
UNION
SELECT pg_describe_object('pg_class'::regclass, c.oid, 0)
FROM pg_class c
WHERE c.relnamespace = to_regnamespace(%(quoted)s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    AND c.relname <> ALL (%(known)s) AND c.relname !~ '^_(items|users|seen)(_old)?(_[0-9]+)?$'
UNION
SELECT pg_describe_object('pg_proc'::regclass, p.oid, 0)
FROM pg_proc p
WHERE p.pronamespace = to_regnamespace(%(quoted)s) AND p.proname <> ALL (%(known)s)
ORDER BY object;

-- name: source_relations
-- Relations that a view reads and a role may not, with the statements that would let it.
SELECT DISTINCT
    CASE
        WHEN NOT has_schema_privilege(%(role)s, n.oid, 'USAGE')
        THEN format('GRANT USAGE ON SCHEMA %%I TO %%I;', n.nspname, %(role)s::text)
    END AS usage,
    CASE
        WHEN NOT has_any_column_privilege(%(role)s, c.oid, 'SELECT')
        THEN format('GRANT SELECT ON %%I.%%I TO %%I;', n.nspname, c.relname, %(role)s::text)
    END AS select
FROM pg_rewrite w
JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
JOIN pg_class c ON c.oid = d.refobjid AND c.oid <> w.ev_class AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE w.ev_class = to_regclass(%(view)s)
    AND NOT (has_schema_privilege(%(role)s, n.oid, 'USAGE') AND has_any_column_privilege(%(role)s, c.oid, 'SELECT'));

-- name: grants_on
-- Who but the owner may do what on a relation.
SELECT
    CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee,
    a.privilege_type,
    a.is_grantable
FROM pg_class c
CROSS JOIN LATERAL aclexplode(c.relacl) a
WHERE c.oid = to_regclass(%(relation)s) AND a.grantee <> c.relowner;

-- name: functions_named
-- The functions of that name, with whom they were granted to.
SELECT
    p.oid,
    p.oid::regprocedure::text AS signature,
    ARRAY(
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
        FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
        WHERE a.grantee <> p.proowner AND a.privilege_type = 'EXECUTE'
    ) AS grantees
FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = %(schema)s AND p.proname = %(name)s;

-- name: partitions_of
SELECT c.relname AS name, i.inhdetachpending AS detach_pending
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass(%(parent)s)
ORDER BY c.relname;

-- name: lock_run
SELECT pg_try_advisory_lock(%(namespace)s, %(recommender_id)s) AS locked;

-- name: unlock_run
SELECT pg_advisory_unlock(%(namespace)s, %(recommender_id)s);

-- name: lock_holder
SELECT l.pid, coalesce(a.application_name, '') AS application_name, a.backend_start
FROM pg_locks l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory'
    AND l.classid = %(namespace)s
    AND l.objid = %(recommender_id)s
    AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
    AND l.granted;

-- name: abandon_runs
-- The caller holds the lock, so whoever still says "running" is gone.
UPDATE recstore_private.runs
SET state = 'abandoned', finished_at = now(), error = 'The process of this run ended without finishing it.'
WHERE recommender_id = %(recommender_id)s AND state = 'running'
RETURNING run;

-- name: end_backends
-- Backends of this role that a dead process left behind.
SELECT pg_terminate_backend(a.pid, 5000) AS ended
FROM pg_stat_activity a
WHERE a.application_name = ANY (%(application_names)s)
    AND a.usename = current_user
    AND a.datname = current_database()
    AND a.pid <> pg_backend_pid();

-- name: insert_run
INSERT INTO recstore_private.runs (recommender_id, job, host, pid, versions)
VALUES (%(recommender_id)s, %(job)s, %(host)s, pg_backend_pid(), %(versions)s)
RETURNING run;

-- name: take_fence
UPDATE recstore_private.pointers SET fence = %(run)s WHERE recommender_id = %(recommender_id)s AND fence < %(run)s
RETURNING fence;

-- name: select_fence
SELECT p.fence FROM recstore_private.pointers p WHERE p.recommender_id = %(recommender_id)s;

-- name: update_run_stages
UPDATE recstore_private.runs SET stages = %(stages)s, warnings = %(warnings)s, device = %(device)s, generation = %(generation)s
WHERE run = %(run)s;

-- name: finish_run
UPDATE recstore_private.runs
SET state = %(state)s, error = %(error)s, trace = %(trace)s, stages = %(stages)s, warnings = %(warnings)s,
    device = %(device)s, generation = %(generation)s, finished_at = now()
WHERE run = %(run)s;

-- name: insert_generation
INSERT INTO recstore_private.generations (recommender_id, vector_type, dimensions)
VALUES (%(recommender_id)s, %(vector_type)s, %(dimensions)s)
RETURNING generation;

-- name: select_generations
SELECT g.*, p.generation = g.generation AS live
FROM recstore_private.generations g
JOIN recstore_private.pointers p ON p.recommender_id = g.recommender_id
WHERE g.recommender_id = %(recommender_id)s AND g.state <> 'pruned'
ORDER BY g.generation;

-- name: start_building
UPDATE recstore_private.generations SET state = 'building', run = %(run)s, definition = %(definition)s
WHERE generation = %(generation)s AND state = 'attached'
RETURNING generation;

-- name: describe_generation
UPDATE recstore_private.generations
SET snapshot = %(snapshot)s, filters = %(filters)s, confidence = %(confidence)s, training = %(training)s,
    factors = %(factors)s, users = %(users)s, items = %(items)s, collapsed_items = %(collapsed_items)s,
    max_item_length = %(max_item_length)s, mean_preference = %(mean_preference)s, seen_published = %(seen_published)s
WHERE generation = %(generation)s;

-- name: store_calibration
UPDATE recstore_private.generations
SET recommend_ef = %(recommend_ef)s, similar_ef = %(similar_ef)s, users_ef = %(users_ef)s, calibration = %(calibration)s
WHERE generation = %(generation)s;

-- name: set_ready
UPDATE recstore_private.generations SET state = 'ready', ready_at = now() WHERE generation = %(generation)s;

-- name: set_reason
UPDATE recstore_private.generations SET reason = %(reason)s WHERE generation = %(generation)s;

-- name: lock_generation
-- Taken by flip, rollback and prune, so that none makes live what another removes.
SELECT g.state FROM recstore_private.generations g
WHERE g.generation = %(generation)s AND g.recommender_id = %(recommender_id)s
FOR UPDATE;

-- name: flip
-- The flip: one row. An older run finds a newer fence and changes nothing.
UPDATE recstore_private.pointers p
SET generation = %(generation)s, flipped_at = now()
FROM (SELECT o.generation FROM recstore_private.pointers o WHERE o.recommender_id = %(recommender_id)s FOR UPDATE) old
WHERE p.recommender_id = %(recommender_id)s AND (%(run)s::bigint IS NULL OR p.fence = %(run)s)
RETURNING old.generation AS from_generation;

-- name: set_published
UPDATE recstore_private.generations SET state = 'published', reason = NULL WHERE generation = %(generation)s;

-- name: insert_flip
INSERT INTO recstore_private.flips (recommender_id, from_generation, to_generation, job, run)
VALUES (%(recommender_id)s, %(from_generation)s, %(generation)s, %(job)s, %(run)s);

-- name: select_pointer
SELECT p.generation, p.flipped_at FROM recstore_private.pointers p WHERE p.recommender_id = %(recommender_id)s;

-- name: retired_long_enough
-- Seconds since the generation was last live; NULL where it never was.
SELECT extract(epoch FROM clock_timestamp() - max(f.flipped_at))::float8 AS seconds
FROM recstore_private.flips f
WHERE f.recommender_id = %(recommender_id)s AND f.from_generation = %(generation)s;

-- name: set_pruning
UPDATE recstore_private.generations
SET state = 'pruning', barrier = 'pruning', barrier_transactions = NULL, barrier_xid = pg_current_xact_id()::text, reason = %(reason)s
WHERE generation = %(generation)s AND state IN ('attached', 'building', 'ready', 'published');

-- name: set_pruned
UPDATE recstore_private.generations
SET state = 'pruned', barrier = NULL, barrier_transactions = NULL, barrier_xid = NULL, mean_preference = NULL
WHERE generation = %(generation)s;

-- name: set_barrier
UPDATE recstore_private.generations
SET barrier = %(barrier)s, barrier_transactions = %(transactions)s
WHERE generation = %(generation)s;

-- name: select_barrier
SELECT g.barrier, g.barrier_transactions AS transactions, g.barrier_xid AS xid
FROM recstore_private.generations g
WHERE g.generation = %(generation)s;

-- name: lock_holding_transactions
-- Transactions that hold a lock on one of these relations now (`strong`: one that maintenance takes, no reader or writer).
-- pg_locks shows them whatever the role; who they are may be hidden.
SELECT DISTINCT l.virtualtransaction
FROM pg_locks l
WHERE l.locktype = 'relation'
    AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
    AND l.relation = ANY (%(relations)s::regclass[]::oid[])
    AND (NOT %(strong)s OR l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock'))
    AND l.pid IS DISTINCT FROM pg_backend_pid();

-- name: open_transactions
-- Every transaction open in this database, whatever its role.
SELECT DISTINCT l.virtualtransaction
FROM pg_locks l
JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'virtualxid' AND l.granted
    AND (a.datname = current_database() OR a.datname IS NULL)
    AND l.pid <> pg_backend_pid();

-- name: still_open
-- Which of these transactions are still open, and who they are as far as this role may know.
SELECT DISTINCT ON (l.virtualtransaction)
    l.virtualtransaction AS transaction,
    l.pid,
    a.usename AS role,
    coalesce(a.application_name, '') AS application_name,
    a.xact_start AS since
FROM pg_locks l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.virtualtransaction = ANY (%(transactions)s)
ORDER BY l.virtualtransaction;

-- name: old_snapshots
-- Backends, and standbys with feedback, whose snapshot may be older than this transaction (a standby that uses a slot shows
-- there). A number from the future is another cluster's, from before a dump and restore, and holds nothing up.
SELECT a.pid, a.usename AS role, coalesce(a.application_name, '') AS application_name, a.xact_start AS since
FROM pg_stat_activity a
WHERE a.backend_xmin IS NOT NULL
    AND (a.datname = current_database() OR a.datname IS NULL)
    AND a.pid <> pg_backend_pid()
    AND %(xid)s::text::xid8 < pg_snapshot_xmax(pg_current_snapshot())
    AND age(a.backend_xmin) >= age(%(xid)s::text::xid8::xid)
UNION ALL
SELECT s.active_pid, NULL, 'replication slot ' || s.slot_name, NULL
FROM pg_replication_slots s
WHERE s.slot_type = 'physical' AND s.xmin IS NOT NULL
    AND %(xid)s::text::xid8 < pg_snapshot_xmax(pg_current_snapshot())
    AND age(s.xmin) >= age(%(xid)s::text::xid8::xid);

-- name: index_progress
SELECT p.tuples_done AS done, p.tuples_total AS total
FROM pg_stat_progress_create_index p
WHERE p.pid = %(pid)s;

-- name: lacking_indexes
-- Of these indexes of a schema, those that are not there or not valid.
SELECT n.name
FROM unnest(%(names)s::text[]) AS n (name)
WHERE NOT EXISTS (
    SELECT
    FROM pg_class c
    JOIN pg_index i ON i.indexrelid = c.oid
    WHERE c.relnamespace = to_regnamespace(%(quoted)s) AND c.relname = n.name AND i.indisvalid
)
ORDER BY n.name;
