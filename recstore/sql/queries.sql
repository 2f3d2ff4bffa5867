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
    r.object_digests, n.nspname AS vector_schema, r.held_out_key
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
SET state = 'abandoned', finished_at = now(), progress = NULL, error = 'The process of this run ended without finishing it.'
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
INSERT INTO recstore_private.runs (recommender_id, job, host, pid, versions, deadline)
VALUES (
    %(recommender_id)s, %(job)s, %(host)s, pg_backend_pid(), %(versions)s,
    clock_timestamp() + make_interval(secs => %(time_limit)s)
)
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
    device = %(device)s, generation = %(generation)s, outcome = %(outcome)s, wal_bytes = %(wal_bytes)s, progress = NULL,
    finished_at = now()
WHERE run = %(run)s;

-- name: update_run_progress
UPDATE recstore_private.runs SET progress = %(progress)s WHERE run = %(run)s AND state = 'running';

-- name: wal_position
-- Bytes of WAL that the whole server has written.
SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS bytes;

-- name: wal_of_backend
-- Bytes of WAL that this session has written (PostgreSQL 18).
SELECT w.wal_bytes AS bytes FROM pg_stat_get_backend_wal(pg_backend_pid()) w;

-- name: flush_statistics
-- Makes the session's own counters visible at the end of this statement, not up to a second later.
SELECT pg_stat_force_next_flush();

-- name: insert_generation
INSERT INTO recstore_private.generations (recommender_id, vector_type, dimensions)
VALUES (%(recommender_id)s, %(vector_type)s, %(dimensions)s)
RETURNING generation;

-- name: stored_generation
-- What folding users in against a generation takes, beside its items.
SELECT g.factors, g.users, g.confidence, g.training, g.held_out, g.fold_in
FROM recstore_private.generations g
WHERE g.generation = %(generation)s;

-- name: live_size
-- How much the live generation was made of.
SELECT p.generation, g.definition -> 'source' AS source,
    g.snapshot -> 'users' AS users, g.snapshot -> 'items' AS items, g.snapshot -> 'pairs' AS pairs
FROM recstore_private.pointers p
JOIN recstore_private.generations g ON g.generation = p.generation
WHERE p.recommender_id = %(recommender_id)s;

-- name: select_generations
SELECT g.generation, g.state, g.run, g.vector_type, g.dimensions, g.definition, g.snapshot, g.factors, g.seen_published,
    g.barrier, g.barrier_transactions, g.barrier_xid, g.reason, g.ready_at,
    p.generation = g.generation AS live
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
    max_item_length = %(max_item_length)s, mean_preference = %(mean_preference)s, seen_published = %(seen_published)s,
    held_out = %(held_out)s, fold_in = %(fold_in)s, metrics = %(metrics)s
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

-- name: generation_size
SELECT g.users, g.items, g.collapsed_items, g.seen_published
FROM recstore_private.generations g
WHERE g.generation = %(generation)s;

-- name: indexes_of
-- The indexes of these tables; m is HNSW's, as it was built.
SELECT
    i.relname AS name,
    x.indisvalid AS valid,
    m.amname = 'hnsw' AS hnsw,
    (SELECT split_part(o.option, '=', 2)::integer FROM unnest(i.reloptions) AS o (option) WHERE o.option LIKE 'm=%%') AS m
FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_am m ON m.oid = i.relam
WHERE x.indrelid IN (SELECT to_regclass(t.name) FROM unnest(%(tables)s::text[]) AS t (name))
ORDER BY i.relname;

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

-- name: request
SELECT recstore_private.request(%(recommender)s, %(job)s, %(origin)s, %(task_id)s, %(force)s) AS request;

-- name: lock_task
-- Two deliveries of one message register it one after the other.
SELECT pg_advisory_xact_lock(%(namespace)s, hashtext(%(task_id)s));

-- name: request_of_task
SELECT q.request FROM recstore_private.requests q WHERE q.task_id = %(task_id)s;

-- name: claim_requests
-- Everything that asks for this job of this recommender, served by one run; but what somebody is cancelling just now, in a
-- transaction that may stay open, which nobody waits for here or below.
UPDATE recstore_private.requests q
SET state = 'running', run = %(run)s, outcome = NULL
WHERE q.request IN (
    SELECT o.request
    FROM recstore_private.requests o
    WHERE o.recommender = %(recommender)s AND o.job = %(job)s AND o.state IN ('waiting', 'sent')
    FOR UPDATE SKIP LOCKED
)
RETURNING q.request, q.origin, q.force;

-- name: unsend_requests
-- The message came to nothing: they wait for the next one.
UPDATE recstore_private.requests q
SET state = 'waiting', sent_at = NULL, outcome = coalesce(%(why)s, q.outcome)
WHERE q.request IN (
    SELECT o.request
    FROM recstore_private.requests o
    WHERE o.recommender = %(recommender)s AND o.job = %(job)s AND o.state = 'sent'
    FOR UPDATE SKIP LOCKED
);

-- name: finish_requests
UPDATE recstore_private.requests
SET state = %(state)s, outcome = %(outcome)s, finished_at = clock_timestamp()
WHERE run = %(run)s AND state = 'running';

-- name: settle_ready_requests
-- What they asked for was complete and waited to go live: now it is, or a later generation took its place.
UPDATE recstore_private.requests q
SET state = 'succeeded',
    finished_at = clock_timestamp(),
    outcome = CASE
        WHEN EXISTS (SELECT FROM recstore_private.flips f WHERE f.to_generation = u.generation)
        THEN 'Generation ' || u.generation || ' is live.'
        ELSE 'Generation ' || u.generation || ' had to wait until a later one took its place.'
    END
FROM recstore_private.runs u
WHERE u.run = q.run AND q.state = 'ready'
    AND NOT EXISTS (SELECT FROM recstore_private.generations g WHERE g.generation = u.generation AND g.state = 'ready');

-- name: release_requests
-- Their run came to nothing through no fault of theirs: they wait again, each time twice as long, up to so many attempts.
-- An interruption is no attempt.
UPDATE recstore_private.requests
SET attempts = attempts + %(attempt)s,
    state = CASE WHEN attempts + %(attempt)s < %(attempts)s THEN 'waiting' ELSE 'failed' END,
    run = CASE WHEN attempts + %(attempt)s < %(attempts)s THEN NULL ELSE run END,
    finished_at = CASE WHEN attempts + %(attempt)s < %(attempts)s THEN NULL ELSE clock_timestamp() END,
    not_before = clock_timestamp() + %(attempt)s * make_interval(secs => least(%(backoff)s * 2 ^ attempts, 3600)),
    sent_at = NULL,
    outcome = %(outcome)s
WHERE run = ANY (%(runs)s) AND state = 'running'
RETURNING request, state;

-- name: take_due_requests
-- Those that are due and whose recommender is idle, marked as sent: one message for each recommender and job. A message
-- sent lately that nobody has begun yet serves the new ones, too. Two dispatches at once take each its own.
WITH due AS (
    SELECT q.request
    FROM recstore_private.requests q
    LEFT JOIN recstore_private.recommenders r ON r.name = q.recommender
    WHERE q.state IN ('waiting', 'sent')
        AND (
            q.state = 'waiting'
            -- a time to come is of a clock that was wrong
            OR q.sent_at NOT BETWEEN clock_timestamp() - make_interval(secs => %(resend)s) AND clock_timestamp()
        )
        AND (q.not_before IS NULL OR q.not_before <= clock_timestamp())
        AND NOT EXISTS (
            SELECT
            FROM recstore_private.requests o
            WHERE o.recommender = q.recommender AND o.job = q.job AND o.state = 'sent'
                AND o.sent_at BETWEEN clock_timestamp() - make_interval(secs => %(resend)s) AND clock_timestamp()
        )
        AND NOT EXISTS (
            SELECT FROM recstore_private.locked_recommenders l WHERE l.recommender_id = r.id::oid
        )
    FOR UPDATE OF q SKIP LOCKED
),
sent AS (
    UPDATE recstore_private.requests q
    SET state = 'sent', sent_at = clock_timestamp()
    FROM due
    WHERE q.request = due.request
    RETURNING q.recommender, q.job, q.request
)
SELECT s.recommender, s.job, array_agg(s.request ORDER BY s.request) AS requests
FROM sent s
GROUP BY s.recommender, s.job
ORDER BY min(s.request);

-- name: forgotten_requests
-- Of recommenders that are no more, or that were dropped with the run that served them.
UPDATE recstore_private.requests q
SET state = 'failed', outcome = 'The recommender ' || quote_literal(q.recommender) || ' was dropped.', finished_at = clock_timestamp()
WHERE q.request IN (
    SELECT o.request
    FROM recstore_private.requests o
    WHERE o.state IN ('waiting', 'sent', 'running', 'ready')
        AND (
            NOT EXISTS (SELECT FROM recstore_private.recommenders r WHERE r.name = o.recommender)
            OR (o.run IS NOT NULL AND NOT EXISTS (SELECT FROM recstore_private.runs u WHERE u.run = o.run))
        )
    FOR UPDATE SKIP LOCKED
);

-- name: scheduled_recommenders
SELECT r.id AS recommender_id, r.name, r.definition -> 'schedule' ->> 'cron' AS cron, r.definition -> 'schedule' ->> 'timezone' AS timezone,
    r.scheduled_at, clock_timestamp() AS now
FROM recstore_private.recommenders r
WHERE r.definition -> 'schedule' ->> 'cron' IS NOT NULL
ORDER BY r.name;

-- name: schedule_waits
-- The schedule has asked already, and nobody has begun.
SELECT FROM recstore_private.requests q
WHERE q.recommender = %(recommender)s AND q.job = 'retrain' AND q.origin = 'schedule' AND q.state IN ('waiting', 'sent')
LIMIT 1;

-- name: advance_schedule
-- Of two dispatches that find the same time due, one advances it.
UPDATE recstore_private.recommenders SET scheduled_at = %(now)s
WHERE id = %(recommender_id)s AND scheduled_at = %(scheduled_at)s
    AND definition -> 'schedule' ->> 'cron' = %(cron)s
RETURNING id;

-- name: restart_schedule
UPDATE recstore_private.recommenders SET scheduled_at = clock_timestamp() WHERE id = %(recommender_id)s;

-- name: note_dispatch
INSERT INTO recstore_private.dispatches (host, dispatched_at) VALUES (%(host)s, clock_timestamp())
ON CONFLICT (host) DO UPDATE SET dispatched_at = excluded.dispatched_at;

-- name: overdue_backends
-- Sessions of this role whose run is past its deadline: its process hangs, or sleeps.
SELECT u.run, a.pid
FROM recstore_private.runs u
JOIN pg_stat_activity a ON a.application_name = 'recstore:run:' || u.run
WHERE u.state = 'running' AND u.deadline < clock_timestamp() - make_interval(secs => %(grace)s)
    AND a.usename = current_user AND a.datname = current_database();

-- name: untidy_recommenders
-- Of those that nobody works on, the ones with something to look after: a run that is gone, a generation half built, being pruned, waiting to go live or
-- whose barrier is not cleared.
SELECT
    r.name,
    EXISTS (SELECT FROM recstore_private.runs u WHERE u.recommender_id = r.id AND u.state = 'running') AS abandoned,
    EXISTS (SELECT FROM recstore_private.generations g WHERE g.recommender_id = r.id AND g.state IN ('building', 'pruning'))
        -- what could not be removed just now is not tried each minute
        AND NOT EXISTS (
            SELECT
            FROM recstore_private.runs u
            WHERE u.recommender_id = r.id AND u.job = 'prune' AND u.finished_at > clock_timestamp() - interval '10 minutes'
        ) AS leftovers,
    EXISTS (
        SELECT FROM recstore_private.generations g
        JOIN recstore_private.pointers p ON p.recommender_id = r.id
        WHERE g.recommender_id = r.id AND g.state = 'ready' AND g.generation > coalesce(p.generation, 0)
            -- a rollback since then is the operator's word
            AND NOT EXISTS (
                SELECT
                FROM recstore_private.flips f
                WHERE f.recommender_id = r.id AND f.job = 'rollback' AND f.flipped_at > g.ready_at
            )
    ) AS ready,
    EXISTS (
        SELECT FROM recstore_private.generations g
        WHERE g.recommender_id = r.id AND g.state = 'attached' AND g.barrier IS DISTINCT FROM 'cleared'
    ) AS blocked
FROM recstore_private.recommenders r
WHERE NOT EXISTS (SELECT FROM recstore_private.locked_recommenders l WHERE l.recommender_id = r.id::oid)
ORDER BY r.name;

-- name: latest_trained
-- The newest generation that was trained to its end, whatever became of it.
SELECT g.generation, g.snapshot, g.definition, g.ready_at, p.generation AS live
FROM recstore_private.generations g
JOIN recstore_private.pointers p ON p.recommender_id = g.recommender_id
WHERE g.recommender_id = %(recommender_id)s AND g.ready_at IS NOT NULL
ORDER BY g.generation DESC
LIMIT 1;

-- name: forget_dispatches
DELETE FROM recstore_private.dispatches
WHERE dispatched_at < clock_timestamp() - make_interval(secs => 86400 * %(days)s);

-- name: forget_requests
DELETE FROM recstore_private.requests
WHERE finished_at < clock_timestamp() - make_interval(secs => 86400 * %(days)s);

-- name: forget_runs
-- But the newest training of each recommender, and what a generation that is still there was made by.
DELETE FROM recstore_private.runs u
WHERE u.finished_at < clock_timestamp() - make_interval(secs => 86400 * %(days)s)
    AND NOT EXISTS (SELECT FROM recstore_private.generations g WHERE g.run = u.run AND g.state <> 'pruned')
    AND EXISTS (
        SELECT FROM recstore_private.runs n
        WHERE n.recommender_id = u.recommender_id AND n.job = u.job AND n.run > u.run
    );

-- What operators look at, from the views alone: a role that may only watch can run these.

-- name: clock
SELECT clock_timestamp() AS now;

-- name: known_recommender
SELECT r.name FROM recstore.recommenders r WHERE r.name = %(recommender)s;

-- name: watch_status
SELECT s.*, v.started_at AS running_since
FROM recstore.status s
LEFT JOIN recstore.runs v ON v.run = s.running
WHERE %(recommender)s::text IS NULL OR s.recommender = %(recommender)s
ORDER BY s.recommender;

-- name: watch_dispatches
-- The newest first.
SELECT d.host, d.dispatched_at, d.age FROM recstore.dispatches d ORDER BY d.dispatched_at DESC;

-- name: watch_requests
-- The newest ones, newest first; `limit` NULL: all.
SELECT q.*
FROM recstore.requests q
WHERE (%(recommender)s::text IS NULL OR q.recommender = %(recommender)s)
    AND (NOT %(open)s OR q.state IN ('waiting', 'sent', 'running'))
ORDER BY q.request DESC
LIMIT %(limit)s;

-- name: watch_request
SELECT q.* FROM recstore.requests q WHERE q.request = %(request)s;

-- name: watch_runs
SELECT u.*
FROM recstore.runs u
WHERE (%(recommender)s::text IS NULL OR u.recommender = %(recommender)s)
    AND (%(job)s::text IS NULL OR u.job = %(job)s)
    AND (%(state)s::text IS NULL OR u.state = %(state)s)
ORDER BY u.run DESC
LIMIT %(limit)s;

-- name: watch_run
SELECT u.* FROM recstore.runs u WHERE u.run = %(run)s;

-- name: requests_of_run
SELECT q.request, q.origin, q.requested_by FROM recstore.requests q WHERE q.run = %(run)s ORDER BY q.request;

-- How recstore is (recstore.health), and what Prometheus is told (recstore.metrics): from the views, a column per metric or
-- label. `job` is called recstore_job there, because Prometheus puts a label `job` of its own on everything.

-- name: last_dispatch
SELECT extract(epoch FROM min(d.age))::float8 AS seconds FROM recstore.dispatches d;

-- name: metrics_recommenders
SELECT
    s.recommender,
    extract(epoch FROM s.last_success_at)::float8 AS last_success,
    s.live_generation,
    extract(epoch FROM clock_timestamp() - g.ready_at)::float8 AS live_age,
    g.users,
    g.items,
    g.factors,
    (SELECT t ->> 'pairs' FROM jsonb_array_elements(u.stages) t WHERE t ->> 'stage' = 'filter')::float8 AS interactions,
    w.generations AS ready,
    w.age AS ready_age,
    s.running IS NOT NULL AS running,
    coalesce(s.running_job, '') AS recstore_job,
    coalesce(s.running_stage, '') AS stage
FROM recstore.status s
LEFT JOIN recstore.generations g ON g.generation = s.live_generation
LEFT JOIN recstore.runs u ON u.run = g.run
CROSS JOIN LATERAL (
    SELECT count(*) AS generations, coalesce(extract(epoch FROM clock_timestamp() - max(w.ready_at)), 0)::float8 AS age
    FROM recstore.generations w
    WHERE w.recommender = s.recommender AND w.state = 'ready' AND w.generation > coalesce(s.live_generation, 0)
) w;

-- name: metrics_queries
-- Of each live generation, as calibrated.
SELECT
    g.recommender,
    c.key AS query,
    (c.value -> 'chosen' ->> 'ann_recall')::float8 AS ann_recall,
    (c.value -> 'chosen' ->> 'milliseconds')::float8 / 1000 AS seconds
FROM recstore.recommenders r
JOIN recstore.generations g ON g.generation = r.live_generation
CROSS JOIN jsonb_each(g.calibration) c;

-- name: metrics_held_out
-- Of each live generation, when it was trained.
SELECT g.recommender, m.model, m.ndcg
FROM recstore.recommenders r
JOIN recstore.generations g ON g.generation = r.live_generation
CROSS JOIN LATERAL (
    VALUES
        ('live', (g.metrics -> 'metrics' ->> 'ndcg@20')::float8),
        ('popularity', (g.metrics -> 'popularity' ->> 'of_other')::float8)
) AS m (model, ndcg)
WHERE m.ndcg IS NOT NULL;

-- name: metrics_stages
-- Of each recommender's last retrain that trained to its end.
SELECT r.name AS recommender, t ->> 'stage' AS stage, sum((t ->> 'seconds')::float8) AS seconds
FROM recstore_private.recommenders r
CROSS JOIN LATERAL (
    SELECT u.stages
    FROM recstore_private.runs u
    WHERE u.recommender_id = r.id AND u.job = 'retrain' AND u.state IN ('succeeded', 'ready')
    ORDER BY u.run DESC
    LIMIT 1
) u
CROSS JOIN jsonb_array_elements(u.stages) t
GROUP BY 1, 2;

-- name: metrics_last_runs
SELECT DISTINCT ON (u.recommender, u.job)
    u.recommender,
    u.job AS recstore_job,
    u.state NOT IN ('failed', 'abandoned') AS succeeded,
    extract(epoch FROM u.finished_at - u.started_at)::float8 AS seconds,
    u.wal_bytes
FROM recstore.runs u
WHERE u.state <> 'running'
ORDER BY u.recommender, u.job, u.run DESC;

-- name: metrics_runs
-- Of today in UTC, which history is never deleted from; with zeros, so that the first of a kind counts as an increase.
SELECT r.name AS recommender, j.job AS recstore_job, s.state, count(u.run) AS runs
FROM recstore.recommenders r
CROSS JOIN unnest(%(jobs)s::text[] || '{publish}') AS j (job)
CROSS JOIN unnest('{succeeded,ready,skipped,failed,abandoned}'::text[]) AS s (state)
LEFT JOIN recstore.runs u
    ON u.recommender = r.name AND u.job = j.job AND u.state = s.state
    AND u.finished_at >= date_trunc('day', clock_timestamp(), 'UTC')
GROUP BY 1, 2, 3;

-- name: metrics_requests
SELECT
    r.name AS recommender,
    j.job AS recstore_job,
    count(q.request) AS waiting,
    coalesce(extract(epoch FROM clock_timestamp() - min(q.requested_at)), 0)::float8 AS oldest
FROM recstore.recommenders r
CROSS JOIN unnest(%(jobs)s::text[]) AS j (job)
LEFT JOIN recstore.requests q ON q.recommender = r.name AND q.job = j.job AND q.state IN ('waiting', 'sent')
GROUP BY 1, 2;

-- name: metrics_dispatches
-- Of the hosts of the last day, and the last of all: names of containers come and go.
SELECT d.host, extract(epoch FROM d.age)::float8 AS age
FROM recstore.dispatches d
WHERE d.age < interval '1 day' OR d.dispatched_at = (SELECT max(m.dispatched_at) FROM recstore.dispatches m);

-- name: holders_of_own_relations
-- Sessions in a transaction that has read, or written, recstore's own tables and views.
SELECT
    'process ' || l.pid || coalesce(' (' || nullif(concat_ws(', ', nullif(a.application_name, ''), 'role ' || a.usename), '') || ')', '')
        || coalesce(', in a transaction since ' || date_trunc('second', a.xact_start), '') AS who
FROM (
    SELECT DISTINCT l.pid
    FROM pg_locks l
    JOIN pg_class c ON c.oid = l.relation
    WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_backend_pid()
        AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
        AND c.relnamespace IN (to_regnamespace('recstore'), to_regnamespace('recstore_private'))
) l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
ORDER BY l.pid;

-- name: scratch_schemas
-- Scratch recommenders of this role, by the schema of their data.
SELECT regexp_replace(n.nspname, '_data$', '') AS name
FROM pg_namespace n
WHERE n.nspname ~ '^scratch_[0-9a-f]{8}_data$'
    AND obj_description(n.oid, 'pg_namespace') = %(mark)s
    AND pg_has_role(n.nspowner, 'USAGE')
ORDER BY 1;
