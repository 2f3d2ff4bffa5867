-- Requests to the workers.

-- name: request
SELECT recstore_private.request(%(recommender)s, %(job)s, %(origin)s, %(task_id)s, %(force)s) AS request;

-- name: lock_task
-- Two deliveries of one message register it in turn.
SELECT pg_advisory_xact_lock(%(namespace)s, hashtext(%(task_id)s));

-- name: request_of_task
SELECT q.request FROM recstore_private.requests q WHERE q.task_id = %(task_id)s;

-- name: claim_requests
-- All open requests for this job of this recommender, served by one run, except those that another transaction is
-- cancelling: it may stay open, and this and the statements below do not wait for it.
UPDATE recstore_private.requests q
SET state = 'running', run = %(run)s, outcome = NULL
WHERE q.request IN (
    SELECT o.request
    FROM recstore_private.requests o
    WHERE o.recommender = %(recommender)s AND o.job = %(job)s AND o.state IN ('waiting', 'sent')
    FOR UPDATE SKIP LOCKED
)
RETURNING q.request, q.origin, q.force;

-- name: unsend_requests
-- The message was lost, or no run could begin: these wait for the next one, which comes after `pause` seconds.
UPDATE recstore_private.requests q
SET state = 'waiting', sent_at = NULL, outcome = coalesce(%(why)s, q.outcome),
    not_before = coalesce(clock_timestamp() + make_interval(secs => %(pause)s), q.not_before)
WHERE q.request IN (
    SELECT o.request
    FROM recstore_private.requests o
    WHERE o.recommender = %(recommender)s AND o.job = %(job)s AND o.state = 'sent'
    FOR UPDATE SKIP LOCKED
);

-- name: finish_requests
UPDATE recstore_private.requests
SET state = %(state)s, outcome = %(outcome)s, finished_at = clock_timestamp()
WHERE run = %(run)s AND state = 'running';

-- name: settle_ready_requests
-- Requests whose generation waited to go live: now it is, or a later one took its place.
UPDATE recstore_private.requests q
SET state = 'succeeded',
    finished_at = clock_timestamp(),
    outcome = CASE
        WHEN EXISTS (SELECT FROM recstore_private.flips f WHERE f.to_generation = u.generation)
        THEN 'Generation ' || u.generation || ' is live.'
        ELSE 'Generation ' || u.generation || ' had to wait until a later one took its place.'
    END
FROM recstore_private.runs u
WHERE u.run = q.run AND q.state = 'ready'
    AND NOT EXISTS (SELECT FROM recstore_private.generations g WHERE g.generation = u.generation AND g.state = 'ready');

-- name: release_requests
-- Requests of a run that did not finish: they wait again, each time twice as long, up to so many attempts.
-- An interruption does not count.
UPDATE recstore_private.requests
SET attempts = attempts + %(attempt)s,
    state = CASE WHEN attempts + %(attempt)s < %(attempts)s THEN 'waiting' ELSE 'failed' END,
    run = CASE WHEN attempts + %(attempt)s < %(attempts)s THEN NULL ELSE run END,
    finished_at = CASE WHEN attempts + %(attempt)s < %(attempts)s THEN NULL ELSE clock_timestamp() END,
    not_before = clock_timestamp() + %(attempt)s * make_interval(secs => least(%(backoff)s * 2 ^ attempts, 3600)),
    sent_at = NULL,
    outcome = %(outcome)s
WHERE run = ANY (%(runs)s) AND state = 'running'
RETURNING request, state;

-- name: take_due_requests
-- Mark due requests of idle recommenders as sent: one message for each recommender and job. A recent message
-- that no run has begun serves the new ones, too. Two concurrent dispatches take different ones. A worker without a broker
-- takes those of some jobs, and not more than it has free processes for.
WITH due AS (
    SELECT q.request, q.recommender, q.job
    FROM recstore_private.requests q
    LEFT JOIN recstore_private.recommenders r ON r.name = q.recommender
    WHERE q.state IN ('waiting', 'sent')
        AND (%(jobs)s::text[] IS NULL OR q.job = ANY (%(jobs)s))
        AND (
            q.state = 'waiting'
            -- a future time comes from a wrong clock
            OR q.sent_at NOT BETWEEN clock_timestamp() - make_interval(secs => %(resend)s) AND clock_timestamp()
        )
        -- a retry waits for an hour at most
        AND (q.not_before IS NULL OR q.not_before NOT BETWEEN clock_timestamp() AND clock_timestamp() + interval '1 hour')
        AND NOT EXISTS (
            SELECT
            FROM recstore_private.requests o
            WHERE o.recommender = q.recommender AND o.job = q.job AND o.state = 'sent'
                AND o.sent_at BETWEEN clock_timestamp() - make_interval(secs => %(resend)s) AND clock_timestamp()
        )
        AND NOT EXISTS (
            SELECT FROM recstore_private.locked_recommenders l WHERE l.recommender_id = r.id::oid AND q.job <> 'lists'
            UNION ALL
            SELECT FROM recstore_private.locked_lists l WHERE l.recommender_id = r.id::oid AND q.job = 'lists'
        )
    FOR UPDATE OF q SKIP LOCKED
),
taken AS (
    SELECT d.recommender, d.job
    FROM due d
    GROUP BY d.recommender, d.job
    ORDER BY min(d.request)
    LIMIT %(limit)s
),
sent AS (
    UPDATE recstore_private.requests q
    SET state = 'sent', sent_at = clock_timestamp()
    FROM due d
    JOIN taken t ON t.recommender = d.recommender AND t.job = d.job
    WHERE q.request = d.request
    RETURNING q.recommender, q.job, q.request
)
SELECT s.recommender, s.job, array_agg(s.request ORDER BY s.request) AS requests
FROM sent s
GROUP BY s.recommender, s.job
ORDER BY min(s.request);

-- name: forgotten_requests
-- Requests of recommenders that were dropped, perhaps with the run that served them.
UPDATE recstore_private.requests q
SET state = 'failed', outcome = 'The recommender ' || quote_literal(q.recommender) || ' was dropped.', finished_at = clock_timestamp()
WHERE q.request IN (
    SELECT o.request
    FROM recstore_private.requests o
    WHERE o.state IN ('waiting', 'sent', 'running', 'ready')
        AND (
            NOT EXISTS (SELECT FROM recstore_private.recommenders r WHERE r.name = o.recommender)
            OR (o.run IS NOT NULL AND NOT EXISTS (SELECT FROM recstore_private.runs u WHERE u.run = o.run))
        )
    FOR UPDATE SKIP LOCKED
);
