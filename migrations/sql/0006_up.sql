-- Operation: publications that a rollback holds, runs that are cancelled, and trainings that the gate refused.

ALTER TABLE recstore_private.pointers
    ADD COLUMN held_at timestamptz,
    ADD COLUMN held_by text;
COMMENT ON COLUMN recstore_private.pointers.held_at IS
    'Time of the rollback since which nothing goes live but by an operator''s word; NULL: publications are not held.';
COMMENT ON COLUMN recstore_private.pointers.held_by IS 'The role that rolled back.';

-- What was ready before a rollback went live at an operator's word alone.
UPDATE recstore_private.pointers p
SET held_at = f.flipped_at, held_by = 'a rollback'
FROM (
    SELECT DISTINCT ON (f.recommender_id) f.recommender_id, f.job, f.flipped_at
    FROM recstore_private.flips f
    ORDER BY f.recommender_id, f.flip DESC
) f
WHERE f.recommender_id = p.recommender_id AND f.job = 'rollback'
    AND EXISTS (
        SELECT FROM recstore_private.generations g
        WHERE g.recommender_id = p.recommender_id AND g.state = 'ready' AND g.generation > p.generation
    );

ALTER TABLE recstore_private.runs
    ADD COLUMN refused jsonb,
    DROP CONSTRAINT ck_runs_state,
    ADD CONSTRAINT ck_runs_state CHECK (state IN ('running', 'succeeded', 'ready', 'skipped', 'failed', 'abandoned', 'cancelled'));
COMMENT ON COLUMN recstore_private.runs.refused IS
    'What the gate refused: {digest, definition, live}. The schedule does not train it again.';

CREATE TABLE recstore_private.cancellations (
    cancellation bigint GENERATED ALWAYS AS IDENTITY,
    run bigint NOT NULL,
    cancelled_by text NOT NULL DEFAULT session_user,
    cancelled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_cancellations PRIMARY KEY (cancellation)
);
COMMENT ON TABLE recstore_private.cancellations IS
    'Runs that are to end. No foreign or unique key: who cancels locks nothing that the run writes.';

-- At commit, as the owner: what the run does in the database ends at once, what it does elsewhere at its next look.
CREATE FUNCTION recstore_private.cancel_sessions() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_cancel_backend(a.pid)
    FROM pg_stat_activity a
    WHERE a.application_name = 'recstore:run:' || NEW.run AND a.usename = current_user
        AND a.datname = current_database() AND a.pid <> pg_backend_pid();
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION recstore_private.cancel_sessions() IS 'Cancels the statements of the sessions of a run that is to end.';
REVOKE EXECUTE ON FUNCTION recstore_private.cancel_sessions() FROM PUBLIC;

CREATE CONSTRAINT TRIGGER cancel_sessions AFTER INSERT ON recstore_private.cancellations
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION recstore_private.cancel_sessions();

-- With its owner's rights, as the functions that ask: whoever may call it needs none on the tables.
CREATE FUNCTION recstore.cancel_run(run bigint) RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH cancelled AS (
        INSERT INTO recstore_private.cancellations (run, cancelled_by)
        SELECT u.run, session_user
        FROM recstore_private.current_runs u
        WHERE u.run = cancel_run.run AND u.state = 'running' AND u.current_state = 'running'
        RETURNING run
    )
    SELECT EXISTS (SELECT FROM cancelled)
$$;
COMMENT ON FUNCTION recstore.cancel_run(bigint) IS
    'Ends a run that is in progress; what is live stays live. False when no run of that number is in progress. Takes effect at commit.';
REVOKE EXECUTE ON FUNCTION recstore.cancel_run(bigint) FROM PUBLIC;

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
    r.scheduled_at,
    p.held_at AS held_since,
    p.held_by
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
    ORDER BY v.job = 'lists', v.run DESC
    LIMIT 1
) v ON true;
