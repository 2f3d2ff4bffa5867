-- Background work goes; what was asked for and not done is forgotten.

DROP VIEW recstore.status, recstore.runs, recstore.requests, recstore.dispatches, recstore_private.current_runs;
DROP FUNCTION recstore.request_retrain(text), recstore.request_reindex(text), recstore.cancel_request(bigint),
    recstore_private.request(text, text, text, text);
DROP TABLE recstore_private.requests, recstore_private.dispatches;
UPDATE recstore_private.runs SET state = 'succeeded' WHERE state = 'skipped';
ALTER TABLE recstore_private.runs
    DROP COLUMN progress,
    DROP COLUMN outcome,
    DROP COLUMN wal_bytes,
    DROP COLUMN deadline,
    DROP CONSTRAINT ck_runs_state,
    ADD CONSTRAINT ck_runs_state CHECK (state IN ('running', 'succeeded', 'ready', 'failed', 'abandoned'));
DROP INDEX recstore_private.ix_runs_running;
ALTER TABLE recstore_private.recommenders DROP COLUMN scheduled_at;
-- Version 0001's definitions know no schedule.
UPDATE recstore_private.recommenders SET definition = definition - 'schedule';

CREATE VIEW recstore.runs AS
SELECT
    u.run,
    r.name AS recommender,
    u.job,
    -- a run holds its lock as long as it lives (a standby knows no locks)
    CASE
        WHEN u.state = 'running' AND NOT pg_is_in_recovery() AND NOT EXISTS (
            SELECT
            FROM pg_locks l
            WHERE l.locktype = 'advisory' AND l.classid = 1919247219 AND l.objid = r.id::oid AND l.objsubid = 2
                AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
        ) THEN 'abandoned'
        ELSE u.state
    END AS state,
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
    u.error
FROM recstore_private.runs u
JOIN recstore_private.recommenders r ON r.id = u.recommender_id;
COMMENT ON VIEW recstore.runs IS 'Every attempt at a job, with its stages, times and the error in a sentence.';

CREATE VIEW recstore.status AS
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
    u.error AS last_error
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
    SELECT u.run, u.state, u.started_at, u.error
    FROM recstore.runs u
    WHERE u.recommender = r.name AND u.job = 'retrain'
    ORDER BY u.run DESC
    LIMIT 1
) u ON true;
COMMENT ON VIEW recstore.status IS 'One row per recommender: what is live, what waits to go live and for whom, how the last training went.';
