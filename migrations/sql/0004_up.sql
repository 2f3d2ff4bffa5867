-- Studies: searches for good hyperparameters, shared by whoever works on them, and resumed where a process was killed.

CREATE TABLE recstore_private.studies (
    study integer GENERATED ALWAYS AS IDENTITY,
    recommender_id integer NOT NULL,
    state text NOT NULL DEFAULT 'running',
    kind text NOT NULL,
    metric text NOT NULL,
    options jsonb NOT NULL,
    definition jsonb NOT NULL,
    split text NOT NULL,
    snapshot jsonb NOT NULL,
    scales jsonb NOT NULL,
    parallel integer NOT NULL DEFAULT 0,
    sent integer NOT NULL DEFAULT 0,
    sent_at timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    best integer,
    evaluation jsonb,
    outcome text,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL DEFAULT session_user,
    finished_at timestamptz,
    adopted_at timestamptz,
    CONSTRAINT pk_studies PRIMARY KEY (study),
    CONSTRAINT fk_studies_recommender_id_recommenders FOREIGN KEY (recommender_id)
        REFERENCES recstore_private.recommenders (id) ON DELETE CASCADE,
    CONSTRAINT ck_studies_state CHECK (state IN ('running', 'ended', 'stopped', 'failed'))
);
CREATE INDEX ix_studies_recommender_id ON recstore_private.studies (recommender_id, study);
CREATE INDEX ix_studies_running ON recstore_private.studies (recommender_id) WHERE state = 'running';
COMMENT ON TABLE recstore_private.studies IS
    'Searches for good hyperparameters. Whoever works on one takes this row for a moment to decide on the next trial.';
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

CREATE TABLE recstore_private.trials (
    trial integer GENERATED ALWAYS AS IDENTITY,
    study integer NOT NULL,
    number integer NOT NULL,
    stage text NOT NULL,
    state text NOT NULL DEFAULT 'running',
    parameters jsonb NOT NULL,
    curve jsonb NOT NULL DEFAULT '[]'::jsonb,
    value double precision,
    iterations integer,
    seconds double precision,
    attempts integer NOT NULL DEFAULT 1,
    error text,
    host text,
    pid integer,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    CONSTRAINT pk_trials PRIMARY KEY (trial),
    CONSTRAINT uq_trials_study UNIQUE (study, number),
    CONSTRAINT fk_trials_study_studies FOREIGN KEY (study) REFERENCES recstore_private.studies (study) ON DELETE CASCADE,
    CONSTRAINT ck_trials_state CHECK (state IN ('running', 'complete', 'pruned', 'failed'))
);
COMMENT ON TABLE recstore_private.trials IS
    'The trainings of a study. One that runs holds a session lock; where that is gone, somebody else takes the trial up again.';
COMMENT ON COLUMN recstore_private.trials.trial IS 'Also the second key of that lock.';
COMMENT ON COLUMN recstore_private.trials.curve IS 'The learning curve, written while it runs: [{iteration, train, validation, seconds}, ..].';
COMMENT ON COLUMN recstore_private.trials.value IS 'The metric on the validation part at the best point of the curve.';
COMMENT ON COLUMN recstore_private.trials.attempts IS 'Also the fencing token: who was overtaken stores nothing.';
COMMENT ON COLUMN recstore_private.trials.pid IS 'Server process id of the connection that holds the lock.';

CREATE TABLE recstore_private.study_data (
    study integer NOT NULL,
    chunk integer NOT NULL,
    content bytea NOT NULL,
    CONSTRAINT pk_study_data PRIMARY KEY (study, chunk),
    CONSTRAINT fk_study_data_study_studies FOREIGN KEY (study) REFERENCES recstore_private.studies (study) ON DELETE CASCADE
);
ALTER TABLE recstore_private.study_data ALTER COLUMN content SET STORAGE EXTERNAL;
COMMENT ON TABLE recstore_private.study_data IS
    'The interactions of a study as they were read, filtered and split: compressed Arrow, so that every trial sees the same. Removed when the study ends.';

CREATE VIEW recstore_private.trials_at_work AS
SELECT t.trial, t.study
FROM recstore_private.trials t
JOIN pg_locks l ON l.objid = t.trial::oid
WHERE t.state = 'running' AND l.locktype = 'advisory' AND l.classid = 1919247221 AND l.objsubid = 2
    AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
COMMENT ON VIEW recstore_private.trials_at_work IS 'Those whose lock somebody holds. Empty on a standby, which knows no locks.';

CREATE VIEW recstore_private.studies_at_work AS
SELECT s.study
FROM recstore_private.studies s
JOIN pg_locks l ON l.objid = s.study::oid
WHERE s.state = 'running' AND l.locktype = 'advisory' AND l.classid = 1919247222 AND l.objsubid = 2
    AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
COMMENT ON VIEW recstore_private.studies_at_work IS 'Those whose winner somebody refits and measures. Empty on a standby.';

CREATE VIEW recstore.trials AS
SELECT
    r.name AS recommender,
    t.study,
    t.number,
    t.stage,
    -- a standby knows no locks
    CASE
        WHEN t.state = 'running' AND NOT pg_is_in_recovery()
            AND NOT EXISTS (SELECT FROM recstore_private.trials_at_work w WHERE w.trial = t.trial) THEN 'waiting'
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
FROM recstore_private.trials t
JOIN recstore_private.studies s ON s.study = t.study
JOIN recstore_private.recommenders r ON r.id = s.recommender_id;
COMMENT ON VIEW recstore.trials IS
    'The trainings of every study: parameters, the metric on the validation part, the learning curve. State waiting: its process is gone, it will be taken up again.';

CREATE VIEW recstore.studies AS
SELECT
    r.name AS recommender,
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
    (SELECT count(*) FROM recstore_private.trials_at_work w WHERE w.study = s.study)
        + (SELECT count(*) FROM recstore_private.studies_at_work w WHERE w.study = s.study) AS at_work,
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
FROM recstore_private.studies s
JOIN recstore_private.recommenders r ON r.id = s.recommender_id
CROSS JOIN LATERAL (
    SELECT
        count(*) AS trials,
        count(*) FILTER (WHERE t.state = 'complete') AS complete,
        count(*) FILTER (WHERE t.state = 'pruned') AS pruned,
        count(*) FILTER (WHERE t.state = 'failed') AS failed,
        coalesce(sum(t.seconds), 0) AS seconds
    FROM recstore_private.trials t
    WHERE t.study = s.study
) c
LEFT JOIN LATERAL (
    SELECT t.number, t.value, t.iterations, t.parameters
    FROM recstore_private.trials t
    WHERE t.study = s.study AND t.state = 'complete' AND (s.best IS NULL OR t.number = s.best)
    ORDER BY t.value DESC, (t.parameters ->> 'factors')::integer NULLS FIRST, t.number
    LIMIT 1
) b ON true;
COMMENT ON VIEW recstore.studies IS
    'Searches for good hyperparameters: state, budget used, the best so far, how many are at work on it, and at the end the measurement of the test part.';
