-- Runs: their lock, their row, their fence.

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
-- The caller holds the lock, so any other run in state "running" is dead. Runs of lists have a lock of their own.
UPDATE recstore_private.runs
SET state = 'abandoned', finished_at = now(), progress = NULL, error = 'The process of this run ended without finishing it.'
WHERE recommender_id = %(recommender_id)s AND state = 'running' AND (job = 'lists') = %(lists)s
RETURNING run;

-- name: end_backends
-- Backends of this role whose client is dead.
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
SELECT p.fence, p.held_at, p.held_by FROM recstore_private.pointers p WHERE p.recommender_id = %(recommender_id)s;

-- name: update_run_stages
UPDATE recstore_private.runs SET stages = %(stages)s, warnings = %(warnings)s, device = %(device)s, generation = %(generation)s
WHERE run = %(run)s;

-- name: finish_run
UPDATE recstore_private.runs
SET state = %(state)s, error = %(error)s, trace = %(trace)s, stages = %(stages)s, warnings = %(warnings)s,
    device = %(device)s, generation = %(generation)s, outcome = %(outcome)s, wal_bytes = %(wal_bytes)s, progress = NULL,
    finished_at = now()
WHERE run = %(run)s;

-- name: cancel_run
SELECT recstore.cancel_run(%(run)s) AS cancelled;

-- name: cancellation
-- Who cancelled a run, first.
SELECT c.cancelled_by FROM recstore_private.cancellations c WHERE c.run = %(run)s ORDER BY c.cancellation LIMIT 1;

-- name: forget_cancellation
DELETE FROM recstore_private.cancellations WHERE run = %(run)s;

-- name: update_run_progress
UPDATE recstore_private.runs SET progress = %(progress)s WHERE run = %(run)s AND state = 'running';

-- name: wal_position
-- Bytes of WAL written by the whole server.
SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS bytes;

-- name: wal_of_backend
-- Bytes of WAL written by this session (PostgreSQL 18).
SELECT w.wal_bytes AS bytes FROM pg_stat_get_backend_wal(pg_backend_pid()) w;

-- name: flush_statistics
-- Make the session's own counters visible at the end of this statement, instead of up to a second later.
SELECT pg_stat_force_next_flush();
