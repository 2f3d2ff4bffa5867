-- The gate: what each generation held out of its training, how well it did on that, and the operator's word against it.

ALTER TABLE recstore_private.recommenders ADD COLUMN held_out_key uuid NOT NULL DEFAULT gen_random_uuid();
COMMENT ON COLUMN recstore_private.recommenders.held_out_key IS
    'Key of the hash that chooses the pairs no training sees, the same in every run.';

ALTER TABLE recstore_private.generations
    ADD COLUMN held_out jsonb,
    ADD COLUMN fold_in jsonb,
    ADD COLUMN metrics jsonb;
COMMENT ON COLUMN recstore_private.generations.held_out IS
    'What the items were not trained on: {users_below, pairs_below, min_users, users, pairs}, and of each item that lost pairs its position by id (items) and how many (counts). NULL: nothing.';
COMMENT ON COLUMN recstore_private.generations.fold_in IS
    'The constants of its trainer that solving a user takes, beside the items'' factors and numbers of users.';
COMMENT ON COLUMN recstore_private.generations.metrics IS
    'On the pairs held out, folded in without them: this generation, popularity, and the generation that was live.';

ALTER TABLE recstore_private.requests ADD COLUMN force boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN recstore_private.requests.force IS 'Publish even what the gate or the source guard would refuse.';

CREATE VIEW recstore_private.locked_recommenders AS
SELECT l.objid AS recommender_id
FROM pg_locks l
WHERE l.locktype = 'advisory' AND l.classid = 1919247219 AND l.objsubid = 2
    AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
COMMENT ON VIEW recstore_private.locked_recommenders IS
    'Those that a run, or another change, is at work on: each holds the session lock as long as it lives. Empty on a standby, which knows no locks.';

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

DROP FUNCTION recstore_private.request(text, text, text, text);
CREATE FUNCTION recstore_private.request(recommender text, job text, origin text, task_id text DEFAULT NULL, force boolean DEFAULT false) RETURNS bigint
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
    INSERT INTO recstore_private.requests (recommender, job, origin, task_id, force)
    VALUES (request.recommender, request.job, request.origin, request.task_id, request.force)
    RETURNING requests.request INTO number;
    PERFORM pg_notify('recstore_requests', request.recommender);
    RETURN number;
END
$$;
COMMENT ON FUNCTION recstore_private.request(text, text, text, text, boolean) IS 'Inserts a request and wakes a listening worker at commit.';

-- With its owner's rights, as the one without force: whoever may call it needs none on the tables.
CREATE FUNCTION recstore.request_retrain(recommender text, force boolean) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$ SELECT recstore_private.request(recommender, 'retrain', 'sql', force => force) $$;
COMMENT ON FUNCTION recstore.request_retrain(text, boolean) IS
    'Asks the workers to retrain a recommender; with force, to publish even what the gate or the source guard would refuse. Returns the request''s number in recstore.requests. Takes effect at commit.';

REVOKE EXECUTE ON FUNCTION recstore_private.request(text, text, text, text, boolean), recstore.request_retrain(text, boolean)
    FROM PUBLIC;

CREATE OR REPLACE VIEW recstore.requests AS
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
    q.finished_at,
    q.force
FROM recstore_private.requests q
LEFT JOIN recstore_private.current_runs u ON u.run = q.run;

CREATE OR REPLACE VIEW recstore.generations AS
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
    f.flipped_at AS last_live_at,
    g.metrics
FROM recstore_private.generations g
JOIN recstore_private.recommenders r ON r.id = g.recommender_id
JOIN recstore_private.pointers p ON p.recommender_id = r.id
LEFT JOIN LATERAL (
    SELECT max(f.flipped_at) AS flipped_at
    FROM recstore_private.flips f
    WHERE f.recommender_id = r.id AND f.to_generation = g.generation
) f ON true;
