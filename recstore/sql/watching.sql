-- What the command line shows of runs and requests.

-- name: clock
SELECT clock_timestamp() AS now;

-- name: known_recommender
SELECT r.name FROM recstore.recommenders r WHERE r.name = %(recommender)s;

-- name: watch_status
-- `ended_..`: of the training before the one that runs.
SELECT
    s.*,
    v.started_at AS running_since,
    e.run AS ended_retrain,
    e.state AS ended_state,
    e.finished_at AS ended_at,
    e.error AS ended_error,
    c.definition #>> '{lists,cron}' AS lists_schedule
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
-- The newest first.
SELECT d.host, d.dispatched_at, d.age FROM recstore.dispatches d ORDER BY d.dispatched_at DESC;

-- name: watch_requests
-- The newest ones, newest first; `limit` NULL: all.
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

-- How recstore is (recstore.health), and what Prometheus is told (recstore.metrics): from the views, a column per metric or
-- label. `job` is called recstore_job there, because Prometheus puts a label `job` of its own on everything.

-- name: last_dispatch
SELECT extract(epoch FROM min(d.age))::float8 AS seconds FROM recstore.dispatches d;
