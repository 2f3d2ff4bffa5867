CREATE SCHEMA recstore;

COMMENT ON SCHEMA recstore IS 'recstore for operators: views of recommenders, generations and runs.';

CREATE SCHEMA recstore_private;

COMMENT ON SCHEMA recstore_private IS 'recstore''s own tables. Read the views of schema recstore instead.';

CREATE FUNCTION recstore.cancel_request(request bigint) RETURNS boolean
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
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

COMMENT ON FUNCTION recstore.cancel_request(request bigint) IS 'Takes a request back that no run has begun yet; false when it is too late, or there is none of that number.';

CREATE FUNCTION recstore.cancel_run(run bigint) RETURNS boolean
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
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

COMMENT ON FUNCTION recstore.cancel_run(run bigint) IS 'Ends a run that is in progress; what is live stays live. False when no run of that number is in progress. Takes effect at commit.';

CREATE FUNCTION recstore.request_lists(recommender text) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ SELECT recstore_private.request(recommender, 'lists', 'sql') $$;

COMMENT ON FUNCTION recstore.request_lists(recommender text) IS 'Asks the workers to write the tables of lists that a recommender''s definition names; returns the request''s number in recstore.requests. Takes effect at commit.';

CREATE FUNCTION recstore.request_refresh(recommender text) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ SELECT recstore_private.request(recommender, 'refresh', 'sql') $$;

COMMENT ON FUNCTION recstore.request_refresh(recommender text) IS 'Asks the workers to store changed users and new items in a recommender''s live generation; returns the request''s number in recstore.requests. Takes effect at commit.';

CREATE FUNCTION recstore.request_reindex(recommender text) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ SELECT recstore_private.request(recommender, 'reindex', 'sql') $$;

COMMENT ON FUNCTION recstore.request_reindex(recommender text) IS 'Asks the workers to rebuild and calibrate the indexes of a recommender''s live generation; returns the request''s number in recstore.requests. Takes effect at commit.';

CREATE FUNCTION recstore.request_retrain(recommender text) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ SELECT recstore_private.request(recommender, 'retrain', 'sql') $$;

COMMENT ON FUNCTION recstore.request_retrain(recommender text) IS 'Asks the workers to retrain a recommender; returns the request''s number in recstore.requests. Takes effect at commit.';

CREATE FUNCTION recstore.request_retrain(recommender text, force boolean) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ SELECT recstore_private.request(recommender, 'retrain', 'sql', force => force) $$;

COMMENT ON FUNCTION recstore.request_retrain(recommender text, force boolean) IS 'Asks the workers to retrain a recommender; with force, to publish even what the gate or the source guard would refuse. Returns the request''s number in recstore.requests. Takes effect at commit.';

CREATE FUNCTION recstore_private.cancel_sessions() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
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

CREATE FUNCTION recstore_private.request(recommender text, job text, origin text, task_id text DEFAULT NULL::text, force boolean DEFAULT false) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    number bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM recstore_private.recommenders r WHERE r.name = request.recommender) THEN
        RAISE EXCEPTION 'there is no recommender named "%"', request.recommender
            USING ERRCODE = 'undefined_object', HINT = 'SELECT name FROM recstore.recommenders lists those there are.';
    END IF;
    IF request.job = 'lists' AND NOT EXISTS (
        SELECT
        FROM recstore_private.recommenders r
        WHERE r.name = request.recommender
            AND coalesce(r.definition -> 'lists' ->> 'recommend_into', r.definition -> 'lists' ->> 'similar_into') IS NOT NULL
    ) THEN
        RAISE EXCEPTION 'the definition of "%" names no table for lists', request.recommender
            USING ERRCODE = 'invalid_parameter_value',
                HINT = format('recstore alter %s --recommend-into schema.table', request.recommender);
    END IF;
    INSERT INTO recstore_private.requests (recommender, job, origin, task_id, force)
    VALUES (request.recommender, request.job, request.origin, request.task_id, coalesce(request.force, false))
    RETURNING requests.request INTO number;
    PERFORM pg_notify('recstore_requests', request.recommender);
    RETURN number;
END
$$;

COMMENT ON FUNCTION recstore_private.request(recommender text, job text, origin text, task_id text, force boolean) IS 'Inserts a request and wakes a listening worker at commit.';

CREATE TABLE recstore_private.dispatches (
    host text NOT NULL,
    dispatched_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE recstore_private.dispatches IS 'When each host''s workers last looked for due work.';

CREATE VIEW recstore.dispatches AS
 SELECT host,
    dispatched_at,
    (clock_timestamp() - dispatched_at) AS age
   FROM recstore_private.dispatches d;

COMMENT ON VIEW recstore.dispatches IS 'When each host''s workers last looked for due work; nothing recent: no worker or no beat is up.';

CREATE TABLE recstore_private.erasures (
    recommender_id integer NOT NULL,
    user_id text NOT NULL,
    xid xid8 NOT NULL,
    erased_at timestamp with time zone NOT NULL,
    erased_by text NOT NULL,
    generations bigint[] NOT NULL
);

COMMENT ON TABLE recstore_private.erasures IS 'Users who were erased. What was read of the source before, and any file, brings none of them back.';

COMMENT ON COLUMN recstore_private.erasures.xid IS 'The transaction that erased: what was read in a snapshot that does not show it was read before.';

COMMENT ON COLUMN recstore_private.erasures.generations IS 'Generations that had rows of this user.';

CREATE TABLE recstore_private.flips (
    flip bigint NOT NULL,
    recommender_id integer NOT NULL,
    from_generation bigint,
    to_generation bigint NOT NULL,
    job text NOT NULL,
    run bigint,
    flipped_at timestamp with time zone DEFAULT now() NOT NULL,
    flipped_by text DEFAULT SESSION_USER NOT NULL
);

COMMENT ON TABLE recstore_private.flips IS 'Every change of a pointer: publications and rollbacks.';

CREATE TABLE recstore_private.generations (
    generation bigint NOT NULL,
    recommender_id integer NOT NULL,
    state text DEFAULT 'attached'::text NOT NULL,
    run bigint,
    vector_type text NOT NULL,
    dimensions integer NOT NULL,
    definition jsonb,
    snapshot jsonb,
    filters jsonb,
    confidence jsonb,
    training jsonb,
    factors integer,
    users integer,
    items integer,
    collapsed_items integer,
    max_item_length double precision,
    mean_preference real[],
    seen_published boolean DEFAULT false NOT NULL,
    recommend_ef integer,
    similar_ef integer,
    users_ef integer,
    calibration jsonb,
    barrier text,
    barrier_transactions jsonb,
    barrier_xid text,
    reason text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    ready_at timestamp with time zone,
    held_out jsonb,
    fold_in jsonb,
    metrics jsonb,
    CONSTRAINT ck_generations_state CHECK ((state = ANY (ARRAY['attached'::text, 'building'::text, 'ready'::text, 'withheld'::text, 'published'::text, 'pruning'::text, 'pruned'::text])))
);

COMMENT ON TABLE recstore_private.generations IS 'One training''s complete result. attached: its empty partitions wait; building: being loaded; ready: complete, not yet live; withheld: complete, goes live when an operator publishes it; published: has been live; pruning: being removed; pruned: gone, kept as history.';

COMMENT ON COLUMN recstore_private.generations.max_item_length IS 'M, the greatest length of an item as the lists rank it: item preference vectors are w_i y_i / M.';

COMMENT ON COLUMN recstore_private.generations.mean_preference IS 'Mean of the unit user vectors, the query of a user nobody knows.';

COMMENT ON COLUMN recstore_private.generations.recommend_ef IS 'Calibrated hnsw.ef_search of recommend(); NULL: exact scan.';

COMMENT ON COLUMN recstore_private.generations.similar_ef IS 'Calibrated hnsw.ef_search of similar_items(); NULL: exact scan.';

COMMENT ON COLUMN recstore_private.generations.users_ef IS 'Calibrated hnsw.ef_search of similar_users() and users_for_item(); NULL: exact scan.';

COMMENT ON COLUMN recstore_private.generations.barrier IS 'What the transactions in barrier_transactions hold up: attached, invalidated, cleared, or pruning.';

COMMENT ON COLUMN recstore_private.generations.barrier_transactions IS 'Virtual transactions that must end first.';

COMMENT ON COLUMN recstore_private.generations.held_out IS 'What the items were not trained on: {users_below, pairs_below, min_users, users, pairs}, and of each item that lost pairs its position by id (items) and how many (counts). NULL: nothing.';

COMMENT ON COLUMN recstore_private.generations.fold_in IS 'The constants of its trainer that solving a user takes, beside the items'' factors and numbers of users.';

COMMENT ON COLUMN recstore_private.generations.metrics IS 'On the pairs held out, folded in without them: this generation, popularity, and the generation that was live.';

CREATE TABLE recstore_private.pointers (
    recommender_id integer NOT NULL,
    generation bigint,
    fence bigint DEFAULT 0 NOT NULL,
    flipped_at timestamp with time zone,
    held_at timestamp with time zone,
    held_by text
);

COMMENT ON TABLE recstore_private.pointers IS 'The one-row pointer to each recommender''s live generation. A flip updates one row.';

COMMENT ON COLUMN recstore_private.pointers.fence IS 'The newest run that took the lock; an older run may not flip.';

COMMENT ON COLUMN recstore_private.pointers.held_at IS 'Time of the rollback since which nothing goes live but by an operator''s word; NULL: publications are not held.';

COMMENT ON COLUMN recstore_private.pointers.held_by IS 'The role that rolled back.';

CREATE TABLE recstore_private.recommenders (
    id integer NOT NULL,
    name text NOT NULL,
    definition jsonb NOT NULL,
    user_type text NOT NULL,
    item_type text NOT NULL,
    vector_type text NOT NULL,
    dimensions integer NOT NULL,
    objects_version integer NOT NULL,
    object_digests jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by text DEFAULT SESSION_USER NOT NULL,
    scheduled_at timestamp with time zone DEFAULT now() NOT NULL,
    held_out_key uuid DEFAULT gen_random_uuid() NOT NULL,
    lists_at timestamp with time zone DEFAULT now() NOT NULL,
    refresh_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE recstore_private.recommenders IS 'One row per recommender: a named configuration that owns the schema of its name.';

COMMENT ON COLUMN recstore_private.recommenders.id IS 'Also the second key of the run''s advisory lock.';

COMMENT ON COLUMN recstore_private.recommenders.object_digests IS 'sha256 of each installed function and view, so that an upgrade replaces only what changed.';

COMMENT ON COLUMN recstore_private.recommenders.scheduled_at IS 'The schedule''s times up to here are dealt with.';

COMMENT ON COLUMN recstore_private.recommenders.held_out_key IS 'Key of the hash that chooses the pairs no training sees, the same in every run.';

COMMENT ON COLUMN recstore_private.recommenders.lists_at IS 'The times to write lists at, up to here, are dealt with.';

COMMENT ON COLUMN recstore_private.recommenders.refresh_at IS 'The times to refresh at, up to here, are dealt with.';

CREATE VIEW recstore.generations AS
 SELECT r.name AS recommender,
    g.generation,
        CASE
            WHEN (p.generation = g.generation) THEN 'live'::text
            WHEN (g.state = 'attached'::text) THEN 'next'::text
            WHEN (g.state = 'published'::text) THEN 'previous'::text
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
    g.metrics,
    ( SELECT count(*) AS count
           FROM recstore_private.erasures e
          WHERE ((e.recommender_id = r.id) AND (g.generation = ANY (e.generations)))) AS erased
   FROM (((recstore_private.generations g
     JOIN recstore_private.recommenders r ON ((r.id = g.recommender_id)))
     JOIN recstore_private.pointers p ON ((p.recommender_id = r.id)))
     LEFT JOIN LATERAL ( SELECT max(f_1.flipped_at) AS flipped_at
           FROM recstore_private.flips f_1
          WHERE ((f_1.recommender_id = r.id) AND (f_1.to_generation = g.generation))) f ON (true));

COMMENT ON VIEW recstore.generations IS 'Every generation: live, previous (can be rolled back to), ready (waits to go live), withheld (goes live when published), next (empty, waits for a training), building, pruning, pruned.';

COMMENT ON COLUMN recstore.generations.erased IS 'Users whose rows were erased from it.';

CREATE VIEW recstore.recommenders AS
 SELECT r.name,
    p.generation AS live_generation,
    p.flipped_at AS live_since,
    r.user_type,
    r.item_type,
    r.vector_type,
    r.dimensions,
    r.definition,
    r.objects_version,
    r.created_at,
    r.created_by
   FROM (recstore_private.recommenders r
     JOIN recstore_private.pointers p ON ((p.recommender_id = r.id)));

COMMENT ON VIEW recstore.recommenders IS 'One row per recommender, with its live generation.';

CREATE VIEW recstore_private.locked_lists AS
 SELECT objid AS recommender_id
   FROM pg_locks l
  WHERE ((locktype = 'advisory'::text) AND (classid = (1919247212)::oid) AND (objsubid = 2) AND (database = ( SELECT d.oid
           FROM pg_database d
          WHERE (d.datname = current_database()))));

COMMENT ON VIEW recstore_private.locked_lists IS 'Recommenders whose lists a run is writing: it holds a lock of its own, beside a training. Empty on a standby.';

CREATE VIEW recstore_private.locked_recommenders AS
 SELECT objid AS recommender_id
   FROM pg_locks l
  WHERE ((locktype = 'advisory'::text) AND (classid = (1919247219)::oid) AND (objsubid = 2) AND (database = ( SELECT d.oid
           FROM pg_database d
          WHERE (d.datname = current_database()))));

COMMENT ON VIEW recstore_private.locked_recommenders IS 'Those that a run, or another change, is at work on: each holds the session lock as long as it lives. Empty on a standby, which knows no locks.';

CREATE TABLE recstore_private.runs (
    run bigint NOT NULL,
    recommender_id integer NOT NULL,
    job text NOT NULL,
    state text DEFAULT 'running'::text NOT NULL,
    generation bigint,
    stages jsonb DEFAULT '[]'::jsonb NOT NULL,
    warnings jsonb DEFAULT '[]'::jsonb NOT NULL,
    device text,
    versions jsonb DEFAULT '{}'::jsonb NOT NULL,
    host text,
    pid integer,
    error text,
    trace text,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone,
    progress jsonb,
    outcome text,
    wal_bytes bigint,
    deadline timestamp with time zone,
    refused jsonb,
    CONSTRAINT ck_runs_state CHECK ((state = ANY (ARRAY['running'::text, 'succeeded'::text, 'ready'::text, 'skipped'::text, 'failed'::text, 'abandoned'::text, 'cancelled'::text])))
);

COMMENT ON TABLE recstore_private.runs IS 'One attempt at a job, successful or not. Its number is the fencing token.';

COMMENT ON COLUMN recstore_private.runs.pid IS 'Server process id of the run''s connection.';

COMMENT ON COLUMN recstore_private.runs.progress IS 'How far the stage at work is: {stage, done, total, note}.';

COMMENT ON COLUMN recstore_private.runs.wal_bytes IS 'WAL written: by the run''s own session from PostgreSQL 18 on, before that by the whole server meanwhile.';

COMMENT ON COLUMN recstore_private.runs.deadline IS 'A worker''s run that still holds its lock after this is ended by a dispatch.';

COMMENT ON COLUMN recstore_private.runs.refused IS 'What the gate refused: {digest, definition, live}. The schedule does not train it again.';

CREATE VIEW recstore_private.current_runs AS
 SELECT run,
    recommender_id,
    job,
    state,
    generation,
    stages,
    warnings,
    device,
    versions,
    host,
    pid,
    error,
    trace,
    started_at,
    finished_at,
    progress,
    outcome,
    wal_bytes,
    deadline,
        CASE
            WHEN ((state = 'running'::text) AND (NOT pg_is_in_recovery()) AND (NOT (EXISTS ( SELECT
               FROM recstore_private.locked_recommenders l
              WHERE ((u.job <> 'lists'::text) AND (l.recommender_id = (u.recommender_id)::oid))
            UNION ALL
             SELECT
               FROM recstore_private.locked_lists l
              WHERE ((u.job = 'lists'::text) AND (l.recommender_id = (u.recommender_id)::oid)))))) THEN 'abandoned'::text
            ELSE state
        END AS current_state
   FROM recstore_private.runs u;

COMMENT ON VIEW recstore_private.current_runs IS 'Runs with their state as of now: a row may say "running" of a process that is gone.';

CREATE TABLE recstore_private.requests (
    request bigint NOT NULL,
    recommender text NOT NULL,
    job text NOT NULL,
    origin text NOT NULL,
    state text DEFAULT 'waiting'::text NOT NULL,
    requested_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    requested_by text DEFAULT SESSION_USER NOT NULL,
    application_name text DEFAULT current_setting('application_name'::text) NOT NULL,
    task_id text,
    not_before timestamp with time zone,
    sent_at timestamp with time zone,
    attempts integer DEFAULT 0 NOT NULL,
    run bigint,
    outcome text,
    finished_at timestamp with time zone,
    force boolean DEFAULT false NOT NULL,
    CONSTRAINT ck_requests_state CHECK ((state = ANY (ARRAY['waiting'::text, 'sent'::text, 'running'::text, 'succeeded'::text, 'ready'::text, 'skipped'::text, 'failed'::text, 'cancelled'::text])))
);

COMMENT ON TABLE recstore_private.requests IS 'What was asked for, by whom, and what became of it; the queue itself. No foreign or unique key: an insert waits for nobody. One run serves every request of its recommender and job that waits when it begins.';

COMMENT ON COLUMN recstore_private.requests.origin IS 'sql, command, task (a Celery message) or schedule.';

COMMENT ON COLUMN recstore_private.requests.state IS 'waiting; sent: a worker was sent a message; running; then as its run ended: succeeded, ready, skipped, failed; or cancelled.';

COMMENT ON COLUMN recstore_private.requests.task_id IS 'Of the Celery message that asked: delivered twice, it asks once.';

COMMENT ON COLUMN recstore_private.requests.attempts IS 'Runs that began it and lost their process or their connection.';

COMMENT ON COLUMN recstore_private.requests.force IS 'Publish even what the gate or the source guard would refuse.';

CREATE VIEW recstore.requests AS
 SELECT q.request,
    q.recommender,
    q.job,
        CASE
            WHEN ((q.state = 'running'::text) AND (u.current_state = 'abandoned'::text)) THEN 'waiting'::text
            ELSE q.state
        END AS state,
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
   FROM (recstore_private.requests q
     LEFT JOIN recstore_private.current_runs u ON ((u.run = q.run)));

COMMENT ON VIEW recstore.requests IS 'What was asked of the workers: who, when, state, and the outcome in a sentence.';

CREATE VIEW recstore.runs AS
 SELECT u.run,
    r.name AS recommender,
    u.job,
    u.current_state AS state,
    u.generation,
    u.started_at,
    (COALESCE(u.finished_at, now()) - u.started_at) AS duration,
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
   FROM (recstore_private.current_runs u
     JOIN recstore_private.recommenders r ON ((r.id = u.recommender_id)));

COMMENT ON VIEW recstore.runs IS 'Every attempt at a job, with its stages, times and the error in a sentence.';

CREATE VIEW recstore.status AS
 SELECT r.name AS recommender,
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
    ((v.stages -> '-1'::integer) ->> 'stage'::text) AS running_stage,
    v.progress AS running_progress,
    ( SELECT count(*) AS count
           FROM recstore_private.requests q
          WHERE ((q.recommender = r.name) AND (q.state = ANY (ARRAY['waiting'::text, 'sent'::text])))) AS requests,
    ((r.definition -> 'schedule'::text) ->> 'cron'::text) AS schedule,
    ((r.definition -> 'schedule'::text) ->> 'timezone'::text) AS timezone,
    r.scheduled_at,
    p.held_at AS held_since,
    p.held_by,
    (r.definition #>> '{refresh,cron}'::text[]) AS refresh_schedule,
    (r.definition #>> '{lists,cron}'::text[]) AS lists_schedule
   FROM ((((((recstore_private.recommenders r
     JOIN recstore_private.pointers p ON ((p.recommender_id = r.id)))
     LEFT JOIN recstore_private.generations g ON ((g.generation = p.generation)))
     LEFT JOIN LATERAL ( SELECT w_1.generation,
            w_1.reason
           FROM recstore_private.generations w_1
          WHERE ((w_1.recommender_id = r.id) AND (w_1.state = 'ready'::text))
          ORDER BY w_1.generation DESC
         LIMIT 1) w ON (true))
     LEFT JOIN LATERAL ( SELECT u_1.run,
            u_1.current_state AS state,
            u_1.started_at,
            u_1.finished_at,
            u_1.error
           FROM recstore_private.current_runs u_1
          WHERE ((u_1.recommender_id = r.id) AND (u_1.job = 'retrain'::text))
          ORDER BY u_1.run DESC
         LIMIT 1) u ON (true))
     LEFT JOIN LATERAL ( SELECT s_1.finished_at
           FROM recstore_private.runs s_1
          WHERE ((s_1.recommender_id = r.id) AND (s_1.job = 'retrain'::text) AND (s_1.state = ANY (ARRAY['succeeded'::text, 'ready'::text, 'skipped'::text])))
          ORDER BY s_1.run DESC
         LIMIT 1) s ON (true))
     LEFT JOIN LATERAL ( SELECT v_1.run,
            v_1.job,
            v_1.stages,
            v_1.progress
           FROM recstore_private.current_runs v_1
          WHERE ((v_1.recommender_id = r.id) AND (v_1.state = 'running'::text) AND (v_1.current_state = 'running'::text))
          ORDER BY (v_1.job = 'lists'::text), v_1.run DESC
         LIMIT 1) v ON (true));

COMMENT ON VIEW recstore.status IS 'One row per recommender: what is live, what runs, what waits to go live and for whom, how the last training went, what is asked for and scheduled.';

CREATE TABLE recstore_private.studies (
    study integer NOT NULL,
    recommender_id integer NOT NULL,
    state text DEFAULT 'running'::text NOT NULL,
    kind text NOT NULL,
    metric text NOT NULL,
    options jsonb NOT NULL,
    definition jsonb NOT NULL,
    split text NOT NULL,
    snapshot jsonb NOT NULL,
    scales jsonb NOT NULL,
    parallel integer DEFAULT 0 NOT NULL,
    sent integer DEFAULT 0 NOT NULL,
    sent_at timestamp with time zone,
    attempts integer DEFAULT 0 NOT NULL,
    best integer,
    evaluation jsonb,
    outcome text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by text DEFAULT SESSION_USER NOT NULL,
    finished_at timestamp with time zone,
    adopted_at timestamp with time zone,
    CONSTRAINT ck_studies_state CHECK ((state = ANY (ARRAY['running'::text, 'ended'::text, 'stopped'::text, 'failed'::text])))
);

COMMENT ON TABLE recstore_private.studies IS 'Searches for good hyperparameters. Whoever works on one takes this row for a moment to decide on the next trial.';

COMMENT ON COLUMN recstore_private.studies.study IS 'Also the second key of the lock of whoever measures the winner.';

COMMENT ON COLUMN recstore_private.studies.kind IS 'optuna: searched; grid: every combination of lists.';

COMMENT ON COLUMN recstore_private.studies.options IS 'What was asked for: metric, budget, space, split; the same asked for again takes it up.';

COMMENT ON COLUMN recstore_private.studies.definition IS 'The recommender''s as it was at the beginning.';

COMMENT ON COLUMN recstore_private.studies.snapshot IS 'What was read of the source: counts, time and digest.';

COMMENT ON COLUMN recstore_private.studies.parallel IS 'Trials that the workers shall have at work at once; 0: none, a command sees to it.';

COMMENT ON COLUMN recstore_private.studies.sent IS 'Messages sent at sent_at or before that no worker has begun yet.';

COMMENT ON COLUMN recstore_private.studies.attempts IS 'At measuring the winner.';

COMMENT ON COLUMN recstore_private.studies.best IS 'Number of the winning trial.';

COMMENT ON COLUMN recstore_private.studies.evaluation IS 'The one measurement of the test part, by the winner refitted, the baselines and the settings there were.';

CREATE VIEW recstore_private.studies_at_work AS
 SELECT s.study
   FROM (recstore_private.studies s
     JOIN pg_locks l ON ((l.objid = (s.study)::oid)))
  WHERE ((s.state = 'running'::text) AND (l.locktype = 'advisory'::text) AND (l.classid = (1919247222)::oid) AND (l.objsubid = 2) AND (l.database = ( SELECT d.oid
           FROM pg_database d
          WHERE (d.datname = current_database()))));

COMMENT ON VIEW recstore_private.studies_at_work IS 'Those whose winner somebody refits and measures. Empty on a standby.';

CREATE TABLE recstore_private.trials (
    trial integer NOT NULL,
    study integer NOT NULL,
    number integer NOT NULL,
    stage text NOT NULL,
    state text DEFAULT 'running'::text NOT NULL,
    parameters jsonb NOT NULL,
    curve jsonb DEFAULT '[]'::jsonb NOT NULL,
    value double precision,
    iterations integer,
    seconds double precision,
    attempts integer DEFAULT 1 NOT NULL,
    error text,
    host text,
    pid integer,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    finished_at timestamp with time zone,
    CONSTRAINT ck_trials_state CHECK ((state = ANY (ARRAY['running'::text, 'complete'::text, 'pruned'::text, 'failed'::text])))
);

COMMENT ON TABLE recstore_private.trials IS 'The trainings of a study. One that runs holds a session lock; where that is gone, somebody else takes the trial up again.';

COMMENT ON COLUMN recstore_private.trials.trial IS 'Also the second key of that lock.';

COMMENT ON COLUMN recstore_private.trials.curve IS 'The learning curve, written while it runs: [{iteration, train, validation, seconds}, ..].';

COMMENT ON COLUMN recstore_private.trials.value IS 'The metric on the validation part at the best point of the curve.';

COMMENT ON COLUMN recstore_private.trials.attempts IS 'Also the fencing token: who was overtaken stores nothing.';

COMMENT ON COLUMN recstore_private.trials.pid IS 'Server process id of the connection that holds the lock.';

CREATE VIEW recstore_private.trials_at_work AS
 SELECT t.trial,
    t.study
   FROM (recstore_private.trials t
     JOIN pg_locks l ON ((l.objid = (t.trial)::oid)))
  WHERE ((t.state = 'running'::text) AND (l.locktype = 'advisory'::text) AND (l.classid = (1919247221)::oid) AND (l.objsubid = 2) AND (l.database = ( SELECT d.oid
           FROM pg_database d
          WHERE (d.datname = current_database()))));

COMMENT ON VIEW recstore_private.trials_at_work IS 'Those whose lock somebody holds. Empty on a standby, which knows no locks.';

CREATE VIEW recstore.studies AS
 SELECT r.name AS recommender,
    s.study,
    s.state,
    s.kind,
    s.metric,
    c.trials,
    c.complete,
    c.pruned,
    c.failed,
    c.seconds,
    b.number AS best,
    b.value AS best_value,
    b.iterations AS best_iterations,
    b.parameters AS best_parameters,
    (( SELECT count(*) AS count
           FROM recstore_private.trials_at_work w
          WHERE (w.study = s.study)) + ( SELECT count(*) AS count
           FROM recstore_private.studies_at_work w
          WHERE (w.study = s.study))) AS at_work,
    s.parallel,
    s.split,
    s.options,
    s.snapshot,
    s.evaluation,
    s.outcome,
    s.created_at,
    s.created_by,
    s.finished_at,
    s.adopted_at
   FROM (((recstore_private.studies s
     JOIN recstore_private.recommenders r ON ((r.id = s.recommender_id)))
     CROSS JOIN LATERAL ( SELECT count(*) AS trials,
            count(*) FILTER (WHERE (t.state = 'complete'::text)) AS complete,
            count(*) FILTER (WHERE (t.state = 'pruned'::text)) AS pruned,
            count(*) FILTER (WHERE (t.state = 'failed'::text)) AS failed,
            COALESCE(sum(t.seconds), (0)::double precision) AS seconds
           FROM recstore_private.trials t
          WHERE (t.study = s.study)) c)
     LEFT JOIN LATERAL ( SELECT t.number,
            t.value,
            t.iterations,
            t.parameters
           FROM recstore_private.trials t
          WHERE ((t.study = s.study) AND (t.state = 'complete'::text) AND ((s.best IS NULL) OR (t.number = s.best)))
          ORDER BY t.value DESC, ((t.parameters ->> 'factors'::text))::integer NULLS FIRST, t.number
         LIMIT 1) b ON (true));

COMMENT ON VIEW recstore.studies IS 'Searches for good hyperparameters: state, budget used, the best so far, how many are at work on it, and at the end the measurement of the test part.';

CREATE VIEW recstore.trials AS
 SELECT r.name AS recommender,
    t.study,
    t.number,
    t.stage,
        CASE
            WHEN ((t.state = 'running'::text) AND (NOT pg_is_in_recovery()) AND (NOT (EXISTS ( SELECT
               FROM recstore_private.trials_at_work w
              WHERE (w.trial = t.trial))))) THEN 'waiting'::text
            ELSE t.state
        END AS state,
    t.value,
    t.iterations,
    t.parameters,
    t.seconds,
    t.curve,
    t.attempts,
    t.error,
    t.host,
    t.pid,
    t.started_at,
    t.finished_at
   FROM ((recstore_private.trials t
     JOIN recstore_private.studies s ON ((s.study = t.study)))
     JOIN recstore_private.recommenders r ON ((r.id = s.recommender_id)));

COMMENT ON VIEW recstore.trials IS 'The trainings of every study: parameters, the metric on the validation part, the learning curve. State waiting: its process is gone, it will be taken up again.';

CREATE TABLE recstore_private.alembic_version (
    version_num character varying(32) NOT NULL
);

CREATE TABLE recstore_private.cancellations (
    cancellation bigint NOT NULL,
    run bigint NOT NULL,
    cancelled_by text DEFAULT SESSION_USER NOT NULL,
    cancelled_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

COMMENT ON TABLE recstore_private.cancellations IS 'Runs that are to end. No foreign or unique key: who cancels locks nothing that the run writes.';

ALTER TABLE recstore_private.cancellations ALTER COLUMN cancellation ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME recstore_private.cancellations_cancellation_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE recstore_private.completions (
    recommender_id integer NOT NULL,
    completed_at timestamp with time zone
);

COMMENT ON TABLE recstore_private.completions IS 'When rows of users were last shown to readers: a generation completed, or lists replaced. Updated in that transaction, and locked FOR SHARE by those that erase, so that each sees what the other did, or fails under REPEATABLE READ.';

ALTER TABLE recstore_private.flips ALTER COLUMN flip ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME recstore_private.flips_flip_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE recstore_private.generations ALTER COLUMN generation ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME recstore_private.generations_generation_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE recstore_private.recommenders ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME recstore_private.recommenders_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE recstore_private.requests ALTER COLUMN request ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME recstore_private.requests_request_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE recstore_private.runs ALTER COLUMN run ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME recstore_private.runs_run_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE recstore_private.studies ALTER COLUMN study ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME recstore_private.studies_study_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE recstore_private.study_data (
    study integer NOT NULL,
    chunk integer NOT NULL,
    content bytea NOT NULL
);
ALTER TABLE ONLY recstore_private.study_data ALTER COLUMN content SET STORAGE EXTERNAL;

COMMENT ON TABLE recstore_private.study_data IS 'The interactions of a study as they were read, filtered and split: compressed Arrow, so that every trial sees the same. Removed when the study ends.';

ALTER TABLE recstore_private.trials ALTER COLUMN trial ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME recstore_private.trials_trial_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY recstore_private.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY recstore_private.cancellations
    ADD CONSTRAINT pk_cancellations PRIMARY KEY (cancellation);

ALTER TABLE ONLY recstore_private.completions
    ADD CONSTRAINT pk_completions PRIMARY KEY (recommender_id);

ALTER TABLE ONLY recstore_private.dispatches
    ADD CONSTRAINT pk_dispatches PRIMARY KEY (host);

ALTER TABLE ONLY recstore_private.erasures
    ADD CONSTRAINT pk_erasures PRIMARY KEY (recommender_id, user_id);

ALTER TABLE ONLY recstore_private.flips
    ADD CONSTRAINT pk_flips PRIMARY KEY (flip);

ALTER TABLE ONLY recstore_private.generations
    ADD CONSTRAINT pk_generations PRIMARY KEY (generation);

ALTER TABLE ONLY recstore_private.pointers
    ADD CONSTRAINT pk_pointers PRIMARY KEY (recommender_id);

ALTER TABLE ONLY recstore_private.recommenders
    ADD CONSTRAINT pk_recommenders PRIMARY KEY (id);

ALTER TABLE ONLY recstore_private.requests
    ADD CONSTRAINT pk_requests PRIMARY KEY (request);

ALTER TABLE ONLY recstore_private.runs
    ADD CONSTRAINT pk_runs PRIMARY KEY (run);

ALTER TABLE ONLY recstore_private.studies
    ADD CONSTRAINT pk_studies PRIMARY KEY (study);

ALTER TABLE ONLY recstore_private.study_data
    ADD CONSTRAINT pk_study_data PRIMARY KEY (study, chunk);

ALTER TABLE ONLY recstore_private.trials
    ADD CONSTRAINT pk_trials PRIMARY KEY (trial);

ALTER TABLE ONLY recstore_private.recommenders
    ADD CONSTRAINT uq_recommenders_name UNIQUE (name);

ALTER TABLE ONLY recstore_private.trials
    ADD CONSTRAINT uq_trials_study UNIQUE (study, number);

CREATE INDEX ix_flips_from_generation ON recstore_private.flips USING btree (from_generation, flipped_at);

CREATE INDEX ix_flips_recommender_id ON recstore_private.flips USING btree (recommender_id, to_generation, flipped_at);

CREATE INDEX ix_generations_recommender_id ON recstore_private.generations USING btree (recommender_id, generation);

CREATE INDEX ix_requests_open ON recstore_private.requests USING btree (recommender, job) WHERE (state = ANY (ARRAY['waiting'::text, 'sent'::text, 'running'::text]));

CREATE INDEX ix_requests_ready ON recstore_private.requests USING btree (run) WHERE (state = 'ready'::text);

CREATE INDEX ix_requests_run ON recstore_private.requests USING btree (run) WHERE (run IS NOT NULL);

CREATE INDEX ix_requests_task_id ON recstore_private.requests USING btree (task_id) WHERE (task_id IS NOT NULL);

CREATE INDEX ix_runs_recommender_id ON recstore_private.runs USING btree (recommender_id, run);

CREATE INDEX ix_runs_running ON recstore_private.runs USING btree (recommender_id) WHERE (state = 'running'::text);

CREATE INDEX ix_studies_recommender_id ON recstore_private.studies USING btree (recommender_id, study);

CREATE INDEX ix_studies_running ON recstore_private.studies USING btree (recommender_id) WHERE (state = 'running'::text);

CREATE CONSTRAINT TRIGGER cancel_sessions AFTER INSERT ON recstore_private.cancellations DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION recstore_private.cancel_sessions();

ALTER TABLE ONLY recstore_private.completions
    ADD CONSTRAINT fk_completions_recommender_id_recommenders FOREIGN KEY (recommender_id) REFERENCES recstore_private.recommenders(id) ON DELETE CASCADE;

ALTER TABLE ONLY recstore_private.erasures
    ADD CONSTRAINT fk_erasures_recommender_id_recommenders FOREIGN KEY (recommender_id) REFERENCES recstore_private.recommenders(id) ON DELETE CASCADE;

ALTER TABLE ONLY recstore_private.flips
    ADD CONSTRAINT fk_flips_recommender_id_recommenders FOREIGN KEY (recommender_id) REFERENCES recstore_private.recommenders(id) ON DELETE CASCADE;

ALTER TABLE ONLY recstore_private.generations
    ADD CONSTRAINT fk_generations_recommender_id_recommenders FOREIGN KEY (recommender_id) REFERENCES recstore_private.recommenders(id) ON DELETE CASCADE;

ALTER TABLE ONLY recstore_private.pointers
    ADD CONSTRAINT fk_pointers_generation_generations FOREIGN KEY (generation) REFERENCES recstore_private.generations(generation) ON DELETE CASCADE;

ALTER TABLE ONLY recstore_private.pointers
    ADD CONSTRAINT fk_pointers_recommender_id_recommenders FOREIGN KEY (recommender_id) REFERENCES recstore_private.recommenders(id) ON DELETE CASCADE;

ALTER TABLE ONLY recstore_private.runs
    ADD CONSTRAINT fk_runs_recommender_id_recommenders FOREIGN KEY (recommender_id) REFERENCES recstore_private.recommenders(id) ON DELETE CASCADE;

ALTER TABLE ONLY recstore_private.studies
    ADD CONSTRAINT fk_studies_recommender_id_recommenders FOREIGN KEY (recommender_id) REFERENCES recstore_private.recommenders(id) ON DELETE CASCADE;

ALTER TABLE ONLY recstore_private.study_data
    ADD CONSTRAINT fk_study_data_study_studies FOREIGN KEY (study) REFERENCES recstore_private.studies(study) ON DELETE CASCADE;

ALTER TABLE ONLY recstore_private.trials
    ADD CONSTRAINT fk_trials_study_studies FOREIGN KEY (study) REFERENCES recstore_private.studies(study) ON DELETE CASCADE;

REVOKE ALL ON FUNCTION recstore.cancel_request(request bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION recstore.cancel_run(run bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION recstore.request_lists(recommender text) FROM PUBLIC;

REVOKE ALL ON FUNCTION recstore.request_refresh(recommender text) FROM PUBLIC;

REVOKE ALL ON FUNCTION recstore.request_reindex(recommender text) FROM PUBLIC;

REVOKE ALL ON FUNCTION recstore.request_retrain(recommender text) FROM PUBLIC;

REVOKE ALL ON FUNCTION recstore.request_retrain(recommender text, force boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION recstore_private.cancel_sessions() FROM PUBLIC;

REVOKE ALL ON FUNCTION recstore_private.request(recommender text, job text, origin text, task_id text, force boolean) FROM PUBLIC;
