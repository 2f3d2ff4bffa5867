-- The gate goes; the next training sees every pair.

DROP VIEW recstore.requests;
DROP FUNCTION recstore.request_retrain(text, boolean), recstore_private.request(text, text, text, text, boolean);
ALTER TABLE recstore_private.requests DROP COLUMN force;
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
REVOKE EXECUTE ON FUNCTION recstore_private.request(text, text, text, text) FROM PUBLIC;

CREATE OR REPLACE VIEW recstore_private.current_runs AS
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

DROP VIEW recstore_private.locked_recommenders;

DROP VIEW recstore.generations;
ALTER TABLE recstore_private.generations DROP COLUMN held_out, DROP COLUMN fold_in, DROP COLUMN metrics;
ALTER TABLE recstore_private.recommenders DROP COLUMN held_out_key;
-- Version 0002's definitions know no gate.
UPDATE recstore_private.recommenders SET definition = definition - 'gate';
CREATE VIEW recstore.generations AS
SELECT
    r.name AS recommender,
    g.generation,
    CASE
        WHEN p.generation = g.generation THEN 'live'
        WHEN g.state = 'attached' THEN 'next'
        WHEN g.state = 'published' THEN 'previous'
        ELSE g.state
    END AS state,
    g.run,
    g.factors,
    g.users,
    g.items,
    g.collapsed_items,
    g.recommend_ef,
    g.similar_ef,
    g.users_ef,
    g.snapshot,
    g.filters,
    g.confidence,
    g.training,
    g.calibration,
    g.reason,
    g.created_at,
    g.ready_at,
    f.flipped_at AS last_live_at
FROM recstore_private.generations g
JOIN recstore_private.recommenders r ON r.id = g.recommender_id
JOIN recstore_private.pointers p ON p.recommender_id = r.id
LEFT JOIN LATERAL (
    SELECT max(f.flipped_at) AS flipped_at
    FROM recstore_private.flips f
    WHERE f.recommender_id = r.id AND f.to_generation = g.generation
) f ON true;
COMMENT ON VIEW recstore.generations IS
    'Every generation: live, previous (can be rolled back to), ready (waits to go live), next (empty, waits for a training), building, pruning, pruned.';
