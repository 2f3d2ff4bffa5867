-- Runs and requests for the command line, from the views alone: a role that may only watch can run these queries.

-- name: clock
SELECT clock_timestamp() AS now;

-- name: known_recommender
SELECT r.name, r.definition, r.user_type, r.item_type FROM recstore.recommenders r WHERE r.name = %(recommender)s;

-- name: watch_status
-- The columns ended_* describe the training before the one in progress.
SELECT
    s.*,
    v.started_at AS running_since,
    e.run AS ended_retrain,
    e.state AS ended_state,
    e.finished_at AS ended_at,
    e.error AS ended_error,
    (
        SELECT max(g.generation) FROM recstore.generations g WHERE g.recommender = s.recommender AND g.state = 'withheld'
    ) AS withheld_generation
FROM recstore.status s
JOIN recstore.recommenders c ON c.name = s.recommender
LEFT JOIN recstore.runs v ON v.run = s.running
LEFT JOIN LATERAL (
    SELECT e.run, e.state, e.finished_at, e.error
    FROM recstore.runs e
    WHERE s.last_retrain = s.running AND e.recommender = s.recommender AND e.job = 'retrain' AND e.run < s.running
    ORDER BY e.run DESC
    LIMIT 1
) e ON true
WHERE %(recommender)s::text IS NULL OR s.recommender = %(recommender)s
ORDER BY s.recommender;

-- name: watch_dispatches
-- Newest first. A time in the future comes from a wrong clock.
SELECT d.host, d.dispatched_at, d.age FROM recstore.dispatches d WHERE d.age > '-1 minute' ORDER BY d.dispatched_at DESC;

-- name: watch_requests
-- The newest requests, newest first; `limit` NULL: all.
SELECT q.*
FROM recstore.requests q
WHERE (%(recommender)s::text IS NULL OR q.recommender = %(recommender)s)
    AND (NOT %(open)s OR q.state IN ('waiting', 'sent', 'running'))
ORDER BY q.request DESC
LIMIT %(limit)s;

-- name: watch_request
SELECT q.* FROM recstore.requests q WHERE q.request = %(request)s;

-- name: watch_runs
SELECT u.*
FROM recstore.runs u
WHERE (%(recommender)s::text IS NULL OR u.recommender = %(recommender)s)
    AND (%(job)s::text IS NULL OR u.job = %(job)s)
    AND (%(state)s::text IS NULL OR u.state = %(state)s)
ORDER BY u.run DESC
LIMIT %(limit)s;

-- name: watch_run
SELECT u.* FROM recstore.runs u WHERE u.run = %(run)s;

-- name: requests_of_run
SELECT q.request, q.origin, q.requested_by FROM recstore.requests q WHERE q.run = %(run)s ORDER BY q.request;

-- name: last_dispatch
-- Seconds since the newest dispatch of any host.
SELECT extract(epoch FROM min(d.age))::float8 AS seconds FROM recstore.dispatches d WHERE d.age > '-1 minute';

-- name: watch_generations
-- Oldest first.
SELECT g.*
FROM recstore.generations g
WHERE g.recommender = %(recommender)s AND (%(pruned)s OR g.state <> 'pruned')
ORDER BY g.generation;
