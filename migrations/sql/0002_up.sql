-- Background work: requests, schedules, and what a run tells while it runs.

ALTER TABLE recstore_private.recommenders ADD COLUMN scheduled_at timestamptz NOT NULL DEFAULT now();
COMMENT ON COLUMN recstore_private.recommenders.scheduled_at IS 'The schedule''s times up to here are dealt with.';

ALTER TABLE recstore_private.runs
    ADD COLUMN progress jsonb,
    ADD COLUMN outcome text,
    ADD COLUMN wal_bytes bigint,
    ADD COLUMN deadline timestamptz,
    DROP CONSTRAINT ck_runs_state,
    ADD CONSTRAINT ck_runs_state CHECK (state IN ('running', 'succeeded', 'ready', 'skipped', 'failed', 'abandoned'));
CREATE INDEX ix_runs_running ON recstore_private.runs (recommender_id) WHERE state = 'running';
COMMENT ON COLUMN recstore_private.runs.progress IS 'How far the stage at work is: {stage, done, total, note}.';
COMMENT ON COLUMN recstore_private.runs.wal_bytes IS
    'WAL written: by the run''s own session from PostgreSQL 18 on, before that by the whole server meanwhile.';
COMMENT ON COLUMN recstore_private.runs.deadline IS 'A worker''s run that still holds its lock after this is ended by a dispatch.';

CREATE TABLE recstore_private.requests (
    request bigint GENERATED ALWAYS AS IDENTITY,
    recommender text NOT NULL,
    job text NOT NULL,
    origin text NOT NULL,
    state text NOT NULL DEFAULT 'waiting',
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    requested_by text NOT NULL DEFAULT session_user,
    application_name text NOT NULL DEFAULT current_setting('application_name'::text),
    task_id text,
    not_before timestamptz,
    sent_at timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    run bigint,
    outcome text,
    finished_at timestamptz,
    CONSTRAINT pk_requests PRIMARY KEY (request),
    CONSTRAINT ck_requests_state
        CHECK (state IN ('waiting', 'sent', 'running', 'succeeded', 'ready', 'skipped', 'failed', 'cancelled'))
);
CREATE INDEX ix_requests_open ON recstore_private.requests (recommender, job) WHERE state IN ('waiting', 'sent', 'running');
CREATE INDEX ix_requests_run ON recstore_private.requests (run) WHERE run IS NOT NULL;
CREATE INDEX ix_requests_task_id ON recstore_private.requests (task_id) WHERE task_id IS NOT NULL;
CREATE INDEX ix_requests_ready ON recstore_private.requests (run) WHERE state = 'ready';
COMMENT ON TABLE recstore_private.requests IS
    'What was asked for, by whom, and what became of it; the queue itself. No foreign or unique key: an insert waits for nobody. One run serves every request of its recommender and job that waits when it begins.';
COMMENT ON COLUMN recstore_private.requests.state IS
    'waiting; sent: a worker was sent a message; running; then as its run ended: succeeded, ready, skipped, failed; or cancelled.';
COMMENT ON COLUMN recstore_private.requests.origin IS 'sql, command, task (a Celery message) or schedule.';
COMMENT ON COLUMN recstore_private.requests.task_id IS 'Of the Celery message that asked: delivered twice, it asks once.';
COMMENT ON COLUMN recstore_private.requests.attempts IS 'Runs that began it and lost their process or their connection.';

CREATE TABLE recstore_private.dispatches (
    host text NOT NULL,
    dispatched_at timestamptz NOT NULL,
    CONSTRAINT pk_dispatches PRIMARY KEY (host)
);
COMMENT ON TABLE recstore_private.dispatches IS 'When each host''s workers last looked for due work.';

CREATE VIEW recstore_private.current_runs AS
SELECT
    u.*,
    -- a run holds its lock as long as it lives (a standby knows no locks)
    CASE
        WHEN u.state = 'running' AND NOT pg_is_in_recovery() AND NOT EXISTS (
            SELECT
            FROM pg_locks l
            WHERE l.locktype = 'advisory' AND l.classid = 1919247219 AND l.objid = u.recommender_id::oid AND l.objsubid = 2
                AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
        ) THEN 'abandoned'
        ELSE u.state
    END AS current_state
FROM recstore_private.runs u;
COMMENT ON VIEW recstore_private.current_runs IS 'Runs with their state as of now: a row may say "running" of a process that is gone.';

CREATE FUNCTION recstore_private.request(recommender text, job text, origin text, task_id text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM recstore_private.recommenders r WHERE r.name = request.recommender) THEN
        RAISE EXCEPTION 'there is no recommender named "%"', request.recommender
            USING ERRCODE = 'undefined_object', HINT = 'SELECT name FROM recstore.recommenders lists those there are.';
    END IF;
    INSERT INTO recstore_private.requests (recommender, job, origin, task_id)
    VALUES (request.recommender, request.job, request.origin, request.task_id)
    RETURNING requests.request INTO number;
    PERFORM pg_notify('recstore_requests', request.recommender);
    RETURN number;
END
$$;
COMMENT ON FUNCTION recstore_private.request(text, text, text, text) IS 'Inserts a request and wakes a listening worker at commit.';

-- The two below, and cancel_request, run with their owner's rights: whoever may call them needs none on the tables.
CREATE FUNCTION recstore.request_retrain(recommender text) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$ SELECT recstore_private.request(recommender, 'retrain', 'sql') $$;
COMMENT ON FUNCTION recstore.request_retrain(text) IS
    'Asks the workers to retrain a recommender; returns the request''s number in recstore.requests. Takes effect at commit.';

CREATE FUNCTION recstore.request_reindex(recommender text) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$ SELECT recstore_private.request(recommender, 'reindex', 'sql') $$;
COMMENT ON FUNCTION recstore.request_reindex(text) IS
    'Asks the workers to rebuild and calibrate the indexes of a recommender''s live generation; returns the request''s number in recstore.requests. Takes effect at commit.';

CREATE FUNCTION recstore.cancel_request(request bigint) RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH cancelled AS (
        UPDATE recstore_private.requests q
        SET state = 'cancelled', finished_at = clock_timestamp(), outcome = 'Cancelled by ' || session_user || '.'
        WHERE q.request = cancel_request.request
            AND (
                q.state IN ('waiting', 'sent')
                OR q.state = 'running' AND EXISTS (
                    SELECT FROM recstore_private.current_runs u WHERE u.run = q.run AND u.current_state = 'abandoned'
                )
            )
        RETURNING q.request
    )
    SELECT EXISTS (SELECT FROM cancelled)
$$;
COMMENT ON FUNCTION recstore.cancel_request(bigint) IS
    'Takes a request back that no run has begun yet; false when it is too late, or there is none of that number.';

REVOKE EXECUTE ON FUNCTION recstore_private.request(text, text, text, text) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION recstore.request_retrain(text), recstore.request_reindex(text), recstore.cancel_request(bigint)
    FROM PUBLIC;

CREATE VIEW recstore.requests AS
SELECT
    q.request,
    q.recommender,
    q.job,
    -- the run is gone, which the next dispatch will notice
    CASE WHEN q.state = 'running' AND u.current_state = 'abandoned' THEN 'waiting' ELSE q.state END AS state,
    q.origin,
    q.requested_by,
    q.application_name,
    q.requested_at,
    q.not_before,
    q.sent_at,
    q.attempts,
    q.run,
    u.generation,
    q.outcome,
    q.finished_at
FROM recstore_private.requests q
LEFT JOIN recstore_private.current_runs u ON u.run = q.run;
COMMENT ON VIEW recstore.requests IS 'What was asked of the workers: who, when, state, and the outcome in a sentence.';

CREATE VIEW recstore.dispatches AS
SELECT d.host, d.dispatched_at, clock_timestamp() - d.dispatched_at AS age
FROM recstore_private.dispatches d;
COMMENT ON VIEW recstore.dispatches IS 'When each host''s workers last looked for due work; nothing recent: no worker or no beat is up.';

CREATE OR REPLACE VIEW recstore.runs AS
SELECT
    u.run,
    r.name AS recommender,
    u.job,
    u.current_state AS state,
    u.generation,
    u.started_at,
    coalesce(u.finished_at, now()) - u.started_at AS duration,
    u.finished_at,
    u.stages,
    u.warnings,
    u.device,
    u.versions,
    u.host,
    u.pid,
    u.error,
    u.trace,
    u.outcome,
    u.progress,
    u.wal_bytes,
    u.deadline
FROM recstore_private.current_runs u
JOIN recstore_private.recommenders r ON r.id = u.recommender_id;

CREATE OR REPLACE VIEW recstore.status AS
SELECT
    r.name AS recommender,
    p.generation AS live_generation,
    p.flipped_at AS live_since,
    g.users,
    g.items,
    w.generation AS ready_generation,
    w.reason AS waits_for,
    u.run AS last_retrain,
    u.state AS last_retrain_state,
    u.started_at AS last_retrain_at,
    u.error AS last_error,
    u.finished_at AS last_retrain_finished_at,
    s.finished_at AS last_success_at,
    v.run AS running,
    v.job AS running_job,
    v.stages -> -1 ->> 'stage' AS running_stage,
    v.progress AS running_progress,
    (
        SELECT count(*)
        FROM recstore_private.requests q
        WHERE q.recommender = r.name AND q.state IN ('waiting', 'sent')
    ) AS requests,
    r.definition -> 'schedule' ->> 'cron' AS schedule,
    r.definition -> 'schedule' ->> 'timezone' AS timezone,
    r.scheduled_at
FROM recstore_private.recommenders r
JOIN recstore_private.pointers p ON p.recommender_id = r.id
LEFT JOIN recstore_private.generations g ON g.generation = p.generation
LEFT JOIN LATERAL (
    SELECT w.generation, w.reason
    FROM recstore_private.generations w
    WHERE w.recommender_id = r.id AND w.state = 'ready'
    ORDER BY w.generation DESC
    LIMIT 1
) w ON true
LEFT JOIN LATERAL (
    SELECT u.run, u.current_state AS state, u.started_at, u.finished_at, u.error
    FROM recstore_private.current_runs u
    WHERE u.recommender_id = r.id AND u.job = 'retrain'
    ORDER BY u.run DESC
    LIMIT 1
) u ON true
LEFT JOIN LATERAL (
    SELECT s.finished_at
    FROM recstore_private.runs s
    WHERE s.recommender_id = r.id AND s.job = 'retrain' AND s.state IN ('succeeded', 'ready', 'skipped')
    ORDER BY s.run DESC
    LIMIT 1
) s ON true
LEFT JOIN LATERAL (
    SELECT v.run, v.job, v.stages, v.progress
    FROM recstore_private.current_runs v
    WHERE v.recommender_id = r.id AND v.state = 'running' AND v.current_state = 'running'
    ORDER BY v.run DESC
    LIMIT 1
) v ON true;
COMMENT ON VIEW recstore.status IS
    'One row per recommender: what is live, what runs, what waits to go live and for whom, how the last training went, what is asked for and scheduled.';
