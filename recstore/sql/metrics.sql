-- Metrics for Prometheus, from the views where possible: a column per metric or label. The label of a run's job is recstore_job,
-- because Prometheus adds a label `job` of its own.

-- name: metrics_recommenders
SELECT
    s.recommender,
    extract(epoch FROM s.last_success_at)::float8 AS last_success,
    s.live_generation,
    extract(epoch FROM clock_timestamp() - g.ready_at)::float8 AS live_age,
    g.users,
    g.items,
    g.factors,
    (SELECT t ->> 'pairs' FROM jsonb_array_elements(u.stages) t WHERE t ->> 'stage' = 'filter')::float8 AS interactions,
    w.generations AS ready,
    w.age AS ready_age,
    q.overdue,
    s.running IS NOT NULL AS running,
    coalesce(s.running_job, '') AS recstore_job,
    coalesce(s.running_stage, '') AS stage
FROM recstore.status s
LEFT JOIN recstore.generations g ON g.generation = s.live_generation
LEFT JOIN recstore.runs u ON u.run = g.run
CROSS JOIN LATERAL (
    SELECT count(*) AS generations, coalesce(extract(epoch FROM clock_timestamp() - max(w.ready_at)), 0)::float8 AS age
    FROM recstore.generations w
    WHERE w.recommender = s.recommender AND w.state = 'ready' AND w.generation > coalesce(s.live_generation, 0)
) w
CROSS JOIN LATERAL (
    SELECT coalesce(extract(epoch FROM clock_timestamp() - min(q.requested_at)), 0)::float8 AS overdue
    FROM recstore_private.requests q
    WHERE q.recommender = s.recommender AND q.job = 'retrain' AND q.origin = 'schedule' AND s.schedule IS NOT NULL
        AND (
            q.state IN ('waiting', 'sent', 'running')
            OR (q.state = 'failed' AND q.requested_at > coalesce(s.last_success_at, '-infinity'))
        )
) q;

-- name: metrics_queries
-- Calibration of each live generation.
SELECT
    g.recommender,
    c.key AS query,
    (c.value -> 'chosen' ->> 'ann_recall')::float8 AS ann_recall,
    (c.value -> 'chosen' ->> 'milliseconds')::float8 / 1000 AS seconds
FROM recstore.recommenders r
JOIN recstore.generations g ON g.generation = r.live_generation
CROSS JOIN jsonb_each(g.calibration) c;

-- name: metrics_held_out
-- Quality of each live generation when it was trained. Of ratings, the baseline is biases, and compared by its error.
SELECT g.recommender, m.model, m.ndcg, m.rmse
FROM recstore.recommenders r
JOIN recstore.generations g ON g.generation = r.live_generation
CROSS JOIN LATERAL (
    SELECT b ->> 'other' AS other, (b ->> 'of_other')::float8 AS value, coalesce(b ->> 'metric', 'ndcg@20') AS metric
    FROM (SELECT g.metrics -> 'popularity') AS baseline (b)
) b
CROSS JOIN LATERAL (
    VALUES
        ('live', (g.metrics -> 'metrics' ->> 'ndcg@20')::float8, (g.metrics -> 'metrics' ->> 'rmse')::float8),
        (b.other, CASE b.metric WHEN 'ndcg@20' THEN b.value END, CASE b.metric WHEN 'rmse' THEN b.value END)
) AS m (model, ndcg, rmse)
WHERE m.model IS NOT NULL;

-- name: metrics_stages
-- Stages of each recommender's last retrain that trained to its end.
SELECT r.name AS recommender, t ->> 'stage' AS stage, sum((t ->> 'seconds')::float8) AS seconds
FROM recstore_private.recommenders r
CROSS JOIN LATERAL (
    SELECT u.stages
    FROM recstore_private.runs u
    WHERE u.recommender_id = r.id AND u.job = 'retrain' AND u.state IN ('succeeded', 'ready')
    ORDER BY u.run DESC
    LIMIT 1
) u
CROSS JOIN jsonb_array_elements(u.stages) t
GROUP BY 1, 2;

-- name: metrics_last_runs
SELECT DISTINCT ON (u.recommender, u.job)
    u.recommender,
    u.job AS recstore_job,
    u.state NOT IN ('failed', 'abandoned') AS succeeded,
    extract(epoch FROM u.finished_at - u.started_at)::float8 AS seconds,
    u.wal_bytes
FROM recstore.runs u
WHERE u.state <> 'running'
ORDER BY u.recommender, u.job, u.run DESC;

-- name: metrics_runs
-- Runs of today in UTC, whose history is never deleted; with zeros, so that the first of a kind counts as an increase.
SELECT r.name AS recommender, j.job AS recstore_job, s.state, count(u.run) AS runs
FROM recstore.recommenders r
CROSS JOIN unnest(%(jobs)s::text[] || '{publish}') AS j (job)
CROSS JOIN unnest('{succeeded,ready,skipped,failed,abandoned,cancelled}'::text[]) AS s (state)
LEFT JOIN recstore.runs u
    ON u.recommender = r.name AND u.job = j.job AND u.state = s.state
    AND u.finished_at >= date_trunc('day', clock_timestamp(), 'UTC')
GROUP BY 1, 2, 3;

-- name: metrics_requests
SELECT
    r.name AS recommender,
    j.job AS recstore_job,
    count(q.request) AS waiting,
    coalesce(extract(epoch FROM clock_timestamp() - min(q.requested_at)), 0)::float8 AS oldest
FROM recstore.recommenders r
CROSS JOIN unnest(%(jobs)s::text[]) AS j (job)
LEFT JOIN recstore.requests q ON q.recommender = r.name AND q.job = j.job AND q.state IN ('waiting', 'sent')
GROUP BY 1, 2;

-- name: metrics_queues
-- Workers of each queue: the listening sessions of their main processes, which every role sees by name.
SELECT q.queue, count(s.pid)::integer AS workers
FROM unnest('{default,train}'::text[]) AS q (queue)
LEFT JOIN pg_stat_activity s ON s.datname = current_database() AND starts_with(s.application_name, %(listening)s)
    AND q.queue = ANY (string_to_array(substr(s.application_name, length(%(listening)s) + 1), ','))
GROUP BY q.queue
ORDER BY q.queue;

-- name: metrics_dispatches
-- Hosts of the last day, and the newest of all: containers change their names.
SELECT d.host, extract(epoch FROM d.age)::float8 AS age
FROM recstore.dispatches d
WHERE d.age < interval '1 day' OR d.dispatched_at = (SELECT max(m.dispatched_at) FROM recstore.dispatches m);
