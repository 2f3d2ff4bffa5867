-- Studies and their trials.

-- name: insert_study
INSERT INTO recstore_private.studies (recommender_id, kind, metric, options, definition, split, snapshot, scales, parallel)
VALUES (
    %(recommender_id)s, %(kind)s, %(metric)s, %(options)s, %(definition)s, %(split)s, %(snapshot)s, %(scales)s,
    %(parallel)s
)
RETURNING study;

-- name: insert_study_data
INSERT INTO recstore_private.study_data (study, chunk, content) VALUES (%(study)s, %(chunk)s, %(content)s);

-- name: study_data
SELECT d.content FROM recstore_private.study_data d WHERE d.study = %(study)s ORDER BY d.chunk;

-- name: delete_study_data
DELETE FROM recstore_private.study_data d WHERE d.study = %(study)s;

-- name: select_study
SELECT s.*, r.name AS recommender
FROM recstore_private.studies s
JOIN recstore_private.recommenders r ON r.id = s.recommender_id
WHERE s.study = %(study)s;

-- name: lock_study
-- Deciding on the next trial holds this until the transaction ends, milliseconds later.
SELECT s.study, s.state FROM recstore_private.studies s WHERE s.study = %(study)s FOR NO KEY UPDATE;

-- name: unfinished_studies
-- The newest first.
SELECT s.study, s.options, s.definition, s.parallel, s.created_at
FROM recstore_private.studies s
WHERE s.recommender_id = %(recommender_id)s AND s.state = 'running'
ORDER BY s.study DESC;

-- name: update_study_parallel
UPDATE recstore_private.studies SET parallel = %(parallel)s WHERE study = %(study)s;

-- name: select_trials
SELECT t.number, t.stage, t.state, t.parameters, t.curve, t.value, t.iterations, t.seconds, t.error
FROM recstore_private.trials t
WHERE t.study = %(study)s
ORDER BY t.number;

-- name: left_trial
-- A trial that is marked as running and whose process has ended.
SELECT t.trial, t.attempts
FROM recstore_private.trials t
WHERE t.study = %(study)s AND t.state = 'running'
    AND NOT EXISTS (SELECT FROM recstore_private.trials_at_work w WHERE w.trial = t.trial)
ORDER BY t.number
LIMIT 1;

-- name: take_trial_again
UPDATE recstore_private.trials
SET attempts = attempts + 1, host = %(host)s, pid = pg_backend_pid(), curve = '[]', started_at = clock_timestamp()
WHERE trial = %(trial)s
RETURNING trial, number, stage, parameters, attempts;

-- name: insert_trial
INSERT INTO recstore_private.trials (study, number, stage, parameters, host, pid)
VALUES (%(study)s, %(number)s, %(stage)s, %(parameters)s, %(host)s, pg_backend_pid())
RETURNING trial, number, stage, parameters, attempts;

-- name: lock_trial
SELECT pg_try_advisory_lock(%(namespace)s::integer, %(key)s::integer) AS locked;

-- name: unlock_trial
SELECT pg_advisory_unlock(%(namespace)s::integer, %(key)s::integer);

-- name: update_trial_curve
-- No row: the study was stopped, or another session has the trial.
UPDATE recstore_private.trials
SET curve = %(curve)s
WHERE trial = %(trial)s AND attempts = %(attempts)s AND state = 'running'
RETURNING trial;

-- name: finish_trial
-- No row: as above.
UPDATE recstore_private.trials
SET state = %(state)s, value = %(value)s, iterations = %(iterations)s, seconds = %(seconds)s, curve = %(curve)s,
    error = %(error)s, finished_at = clock_timestamp()
WHERE trial = %(trial)s AND attempts = %(attempts)s AND state = 'running'
RETURNING trial;

-- name: begin_measuring
UPDATE recstore_private.studies SET attempts = attempts + 1 WHERE study = %(study)s AND state = 'running' RETURNING attempts;

-- name: finish_study
-- No row: it had ended before.
UPDATE recstore_private.studies
SET state = %(state)s, best = %(best)s, evaluation = %(evaluation)s, outcome = %(outcome)s, finished_at = clock_timestamp()
WHERE study = %(study)s AND state = 'running'
RETURNING study;

-- name: abandon_trials
-- One trial at work, or all of a study.
UPDATE recstore_private.trials
SET state = 'failed', error = %(error)s, finished_at = clock_timestamp()
WHERE study = %(study)s AND state = 'running' AND trial = coalesce(%(trial)s, trial);

-- name: note_adopted
UPDATE recstore_private.studies SET best = %(best)s, adopted_at = clock_timestamp() WHERE study = %(study)s;

-- name: take_due_trials
-- Studies with fewer trials at work than the workers should run, counting the messages that no worker has begun yet. Marks as
-- many messages as sent as are missing; a worker without a broker takes one trial of one study, in turns, but of none in
-- `except`.
WITH counted AS (
    SELECT
        s.study,
        s.parallel,
        s.sent_at,
        CASE WHEN s.sent_at > clock_timestamp() - make_interval(secs => %(resend)s) THEN s.sent ELSE 0 END AS outstanding,
        (SELECT count(*) FROM recstore_private.trials_at_work w WHERE w.study = s.study)
            + (SELECT count(*) FROM recstore_private.studies_at_work w WHERE w.study = s.study) AS at_work
    FROM recstore_private.studies s
    WHERE s.state = 'running' AND s.parallel > 0 AND s.study <> ALL (%(except)s)
    FOR NO KEY UPDATE OF s SKIP LOCKED
),
missing AS (
    SELECT c.study, c.outstanding, least(c.parallel - c.at_work - c.outstanding, %(limit)s) AS messages
    FROM counted c
    WHERE c.parallel > c.at_work + c.outstanding
    ORDER BY c.sent_at NULLS FIRST, c.study
    LIMIT %(limit)s
)
UPDATE recstore_private.studies s
SET sent = m.outstanding + m.messages, sent_at = clock_timestamp()
FROM missing m
WHERE s.study = m.study
RETURNING s.study, m.messages;

-- name: begin_message
-- No row: others were sent in its place.
UPDATE recstore_private.studies SET sent = sent - 1 WHERE study = %(study)s AND sent > 0 RETURNING study;

-- name: unsend_trials
-- Messages that could not be sent.
UPDATE recstore_private.studies SET sent = greatest(sent - %(messages)s, 0) WHERE study = %(study)s;

-- name: forget_studies
-- Studies that ended, or had their last trial, so many days ago.
DELETE FROM recstore_private.studies s
WHERE greatest(s.created_at, s.finished_at, (SELECT max(t.started_at) FROM recstore_private.trials t WHERE t.study = s.study))
    < now() - make_interval(secs => 86400 * %(days)s);

-- name: watch_studies
-- The newest ones, newest first.
SELECT s.*
FROM recstore.studies s
WHERE %(recommender)s::text IS NULL OR s.recommender = %(recommender)s
ORDER BY s.study DESC
LIMIT %(limit)s;

-- name: watch_study
SELECT s.* FROM recstore.studies s WHERE s.study = %(study)s;

-- name: watch_trials
SELECT t.* FROM recstore.trials t WHERE t.study = %(study)s ORDER BY t.number;
