-- The registry. Tables are private; operators read the views of schema recstore.

CREATE SCHEMA recstore;
COMMENT ON SCHEMA recstore IS 'recstore for operators: views of recommenders, generations and runs.';
COMMENT ON SCHEMA recstore_private IS 'recstore''s own tables. Read the views of schema recstore instead.';

CREATE TABLE recstore_private.recommenders (
    id integer GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL,
    definition jsonb NOT NULL,
    user_type text NOT NULL,
    item_type text NOT NULL,
    vector_type text NOT NULL,
    dimensions integer NOT NULL,
    objects_version integer NOT NULL,
    object_digests jsonb NOT NULL DEFAULT '{}'::jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL DEFAULT session_user,
    CONSTRAINT pk_recommenders PRIMARY KEY (id),
    CONSTRAINT uq_recommenders_name UNIQUE (name)
);
COMMENT ON TABLE recstore_private.recommenders IS 'One row per recommender: a named configuration that owns the schema of its name.';
COMMENT ON COLUMN recstore_private.recommenders.id IS 'Also the second key of the run''s advisory lock.';
COMMENT ON COLUMN recstore_private.recommenders.object_digests IS 'sha256 of each installed function and view, so that an upgrade replaces only what changed.';

CREATE TABLE recstore_private.runs (
    run bigint GENERATED ALWAYS AS IDENTITY,
    recommender_id integer NOT NULL,
    job text NOT NULL,
    state text NOT NULL DEFAULT 'running',
    generation bigint,
    stages jsonb NOT NULL DEFAULT '[]'::jsonb,
    warnings jsonb NOT NULL DEFAULT '[]'::jsonb,
    device text,
    versions jsonb NOT NULL DEFAULT '{}'::jsonb,
    host text,
    pid integer,
    error text,
    trace text,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CONSTRAINT pk_runs PRIMARY KEY (run),
    CONSTRAINT fk_runs_recommender_id_recommenders FOREIGN KEY (recommender_id)
        REFERENCES recstore_private.recommenders (id) ON DELETE CASCADE,
    CONSTRAINT ck_runs_state CHECK (state IN ('running', 'succeeded', 'ready', 'failed', 'abandoned'))
);
CREATE INDEX ix_runs_recommender_id ON recstore_private.runs (recommender_id, run);
COMMENT ON TABLE recstore_private.runs IS 'One attempt at a job, successful or not. Its number is the fencing token.';
COMMENT ON COLUMN recstore_private.runs.pid IS 'Server process id of the run''s connection.';

CREATE TABLE recstore_private.generations (
    generation bigint GENERATED ALWAYS AS IDENTITY,
    recommender_id integer NOT NULL,
    state text NOT NULL DEFAULT 'attached',
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
    seen_published boolean NOT NULL DEFAULT false,
    recommend_ef integer,
    similar_ef integer,
    users_ef integer,
    calibration jsonb,
    barrier text,
    barrier_transactions jsonb,
    barrier_xid text,
    reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    ready_at timestamptz,
    CONSTRAINT pk_generations PRIMARY KEY (generation),
    CONSTRAINT fk_generations_recommender_id_recommenders FOREIGN KEY (recommender_id)
        REFERENCES recstore_private.recommenders (id) ON DELETE CASCADE,
    CONSTRAINT ck_generations_state
        CHECK (state IN ('attached', 'building', 'ready', 'published', 'pruning', 'pruned'))
);
CREATE INDEX ix_generations_recommender_id ON recstore_private.generations (recommender_id, generation);
COMMENT ON TABLE recstore_private.generations IS
    'One training''s complete result. attached: its empty partitions wait; building: being loaded; ready: complete, not yet live; published: has been live; pruning: being removed; pruned: gone, kept as history.';
COMMENT ON COLUMN recstore_private.generations.recommend_ef IS 'Calibrated hnsw.ef_search of recommend(); NULL: exact scan.';
COMMENT ON COLUMN recstore_private.generations.similar_ef IS 'Calibrated hnsw.ef_search of similar_items(); NULL: exact scan.';
COMMENT ON COLUMN recstore_private.generations.users_ef IS 'Calibrated hnsw.ef_search of similar_users() and users_for_item(); NULL: exact scan.';
COMMENT ON COLUMN recstore_private.generations.max_item_length IS 'M = max |y_i|: item preference vectors are y_i / M.';
COMMENT ON COLUMN recstore_private.generations.mean_preference IS 'Mean of the unit user vectors, the query of a user nobody knows.';
COMMENT ON COLUMN recstore_private.generations.barrier IS 'What the transactions in barrier_transactions hold up: attached, invalidated, cleared, or pruning.';
COMMENT ON COLUMN recstore_private.generations.barrier_transactions IS 'Virtual transactions that must end first.';

CREATE TABLE recstore_private.pointers (
    recommender_id integer NOT NULL,
    generation bigint,
    fence bigint NOT NULL DEFAULT 0,
    flipped_at timestamptz,
    CONSTRAINT pk_pointers PRIMARY KEY (recommender_id),
    CONSTRAINT fk_pointers_recommender_id_recommenders FOREIGN KEY (recommender_id)
        REFERENCES recstore_private.recommenders (id) ON DELETE CASCADE,
    CONSTRAINT fk_pointers_generation_generations FOREIGN KEY (generation)
        REFERENCES recstore_private.generations (generation) ON DELETE CASCADE
);
COMMENT ON TABLE recstore_private.pointers IS 'The one-row pointer to each recommender''s live generation. A flip updates one row.';
COMMENT ON COLUMN recstore_private.pointers.fence IS 'The newest run that took the lock; an older run may not flip.';

CREATE TABLE recstore_private.flips (
    flip bigint GENERATED ALWAYS AS IDENTITY,
    recommender_id integer NOT NULL,
    from_generation bigint,
    to_generation bigint NOT NULL,
    job text NOT NULL,
    run bigint,
    flipped_at timestamptz NOT NULL DEFAULT now(),
    flipped_by text NOT NULL DEFAULT session_user,
    CONSTRAINT pk_flips PRIMARY KEY (flip),
    CONSTRAINT fk_flips_recommender_id_recommenders FOREIGN KEY (recommender_id)
        REFERENCES recstore_private.recommenders (id) ON DELETE CASCADE
);
CREATE INDEX ix_flips_recommender_id ON recstore_private.flips (recommender_id, to_generation, flipped_at);
CREATE INDEX ix_flips_from_generation ON recstore_private.flips (from_generation, flipped_at);
COMMENT ON TABLE recstore_private.flips IS 'Every change of a pointer: publications and rollbacks.';

CREATE VIEW recstore.recommenders AS
SELECT
    r.name,
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
FROM recstore_private.recommenders r
JOIN recstore_private.pointers p ON p.recommender_id = r.id;
COMMENT ON VIEW recstore.recommenders IS 'One row per recommender, with its live generation.';

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
