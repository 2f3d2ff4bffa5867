-- Lists are written by hand again; who asks for them meanwhile is told that it failed.

DROP FUNCTION recstore.request_lists(text);
UPDATE recstore_private.requests
SET state = 'failed', finished_at = clock_timestamp(), outcome = 'The version before 0005 writes no lists.'
WHERE job = 'lists' AND state IN ('waiting', 'sent', 'running');

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

CREATE OR REPLACE VIEW recstore_private.current_runs AS
SELECT
    u.*,
    CASE
        WHEN u.state = 'running' AND NOT pg_is_in_recovery() AND NOT EXISTS (
            SELECT FROM recstore_private.locked_recommenders l WHERE l.recommender_id = u.recommender_id::oid
        ) THEN 'abandoned'
        ELSE u.state
    END AS current_state
FROM recstore_private.runs u;

DROP VIEW recstore_private.locked_lists;
ALTER TABLE recstore_private.recommenders DROP COLUMN lists_at;

-- Version 0004's definitions know neither lists nor candidates.
UPDATE recstore_private.recommenders SET definition = definition - '{lists,candidates}'::text[];
UPDATE recstore_private.generations SET definition = definition - '{lists,candidates}'::text[];
UPDATE recstore_private.studies SET definition = definition - '{lists,candidates}'::text[];
