-- Queries of a dispatch.

-- name: scheduled_recommenders
SELECT r.id AS recommender_id, r.name, s.job, s.cron, r.definition -> 'schedule' ->> 'timezone' AS timezone,
    s.scheduled_at, clock_timestamp() AS now
FROM recstore_private.recommenders r
CROSS JOIN LATERAL (
    VALUES
        ('retrain', r.definition -> 'schedule' ->> 'cron', r.scheduled_at),
        ('refresh', r.definition -> 'refresh' ->> 'cron', r.refresh_at),
        ('lists', r.definition -> 'lists' ->> 'cron', r.lists_at)
) AS s (job, cron, scheduled_at)
WHERE s.cron IS NOT NULL
ORDER BY r.name, s.job DESC;

-- name: schedule_waits
-- A request of the schedule that no run has begun.
SELECT FROM recstore_private.requests q
WHERE q.recommender = %(recommender)s AND q.job = %(job)s AND q.origin = 'schedule' AND q.state IN ('waiting', 'sent')
LIMIT 1;

-- name: advance_schedule
-- Only one of several dispatches that find the same time due advances it.
UPDATE recstore_private.recommenders SET scheduled_at = %(now)s
WHERE id = %(recommender_id)s AND scheduled_at = %(scheduled_at)s
    AND definition -> 'schedule' ->> 'cron' = %(cron)s
RETURNING id;

-- name: advance_lists
-- The same for the times of lists.
UPDATE recstore_private.recommenders SET lists_at = %(now)s
WHERE id = %(recommender_id)s AND lists_at = %(scheduled_at)s
    AND definition -> 'lists' ->> 'cron' = %(cron)s
RETURNING id;

-- name: advance_refresh
-- The same for the times of a refresh.
UPDATE recstore_private.recommenders SET refresh_at = %(now)s
WHERE id = %(recommender_id)s AND refresh_at = %(scheduled_at)s
    AND definition -> 'refresh' ->> 'cron' = %(cron)s
RETURNING id;

-- name: restart_refresh
UPDATE recstore_private.recommenders SET refresh_at = clock_timestamp() WHERE id = %(recommender_id)s;

-- name: restart_schedule
UPDATE recstore_private.recommenders SET scheduled_at = clock_timestamp() WHERE id = %(recommender_id)s;

-- name: restart_lists
UPDATE recstore_private.recommenders SET lists_at = clock_timestamp() WHERE id = %(recommender_id)s;

-- name: note_dispatch
INSERT INTO recstore_private.dispatches (host, dispatched_at) VALUES (%(host)s, clock_timestamp())
ON CONFLICT (host) DO UPDATE SET dispatched_at = excluded.dispatched_at;

-- name: overdue_backends
-- Sessions of this role whose run is past its deadline: its process hangs, or sleeps.
SELECT u.run, a.pid
FROM recstore_private.runs u
JOIN pg_stat_activity a ON a.application_name = 'recstore:run:' || u.run
WHERE u.state = 'running' AND u.deadline < clock_timestamp() - make_interval(secs => %(grace)s)
    AND a.usename = current_user AND a.datname = current_database();

-- name: untidy_recommenders
-- Idle recommenders with an abandoned run, or with a generation that is half built, being pruned, waiting to go live, or whose
-- barrier is not cleared.
SELECT
    r.name,
    EXISTS (
        SELECT FROM recstore_private.runs u WHERE u.recommender_id = r.id AND u.state = 'running' AND u.job <> 'lists'
    ) AS abandoned,
    EXISTS (SELECT FROM recstore_private.generations g WHERE g.recommender_id = r.id AND g.state IN ('building', 'pruning'))
        -- a removal that failed is not retried each minute
        AND NOT EXISTS (
            SELECT
            FROM recstore_private.runs u
            WHERE u.recommender_id = r.id AND u.job = 'prune'
                AND u.finished_at BETWEEN clock_timestamp() - interval '10 minutes' AND clock_timestamp()
        ) AS leftovers,
    EXISTS (
        SELECT FROM recstore_private.generations g
        JOIN recstore_private.pointers p ON p.recommender_id = r.id
        WHERE g.recommender_id = r.id AND g.state = 'ready' AND g.generation > coalesce(p.generation, 0)
            AND p.held_at IS NULL -- not after a rollback: that was an operator's decision
    ) AS ready,
    EXISTS (
        SELECT FROM recstore_private.generations g
        WHERE g.recommender_id = r.id AND g.state = 'attached' AND g.barrier IS DISTINCT FROM 'cleared'
    ) AS blocked
FROM recstore_private.recommenders r
WHERE NOT EXISTS (SELECT FROM recstore_private.locked_recommenders l WHERE l.recommender_id = r.id::oid)
ORDER BY r.name;

-- name: abandoned_lists
-- Recommenders with an abandoned run of lists.
SELECT DISTINCT r.name
FROM recstore_private.recommenders r
JOIN recstore_private.current_runs u ON u.recommender_id = r.id
WHERE u.job = 'lists' AND u.state = 'running' AND u.current_state = 'abandoned'
ORDER BY r.name;

-- name: latest_trained
-- The newest generation that was trained to its end, in any state.
SELECT g.generation, g.snapshot, g.definition, g.ready_at, p.generation AS live
FROM recstore_private.generations g
JOIN recstore_private.pointers p ON p.recommender_id = g.recommender_id
WHERE g.recommender_id = %(recommender_id)s AND g.ready_at IS NOT NULL
ORDER BY g.generation DESC
LIMIT 1;

-- name: note_refusal
UPDATE recstore_private.runs SET refused = %(refused)s WHERE run = %(run)s;

-- name: latest_refused
-- The newest training that the gate refused, and the generation that it was compared with.
SELECT u.run, u.refused ->> 'digest' AS digest, u.refused -> 'definition' AS definition, (u.refused ->> 'live')::bigint AS live
FROM recstore_private.runs u
WHERE u.recommender_id = %(recommender_id)s AND u.refused IS NOT NULL
ORDER BY u.run DESC
LIMIT 1;

-- name: cancel_again
-- A cancelled run that began its next statement meanwhile.
SELECT pg_cancel_backend(a.pid)
FROM recstore_private.cancellations c
JOIN pg_stat_activity a ON a.application_name = 'recstore:run:' || c.run
WHERE a.usename = current_user AND a.datname = current_database();

-- name: forget_cancellations
-- Those that no run heeded, because its process was gone.
DELETE FROM recstore_private.cancellations c
WHERE NOT EXISTS (SELECT FROM recstore_private.runs u WHERE u.run = c.run AND u.state = 'running');

-- name: forget_dispatches
DELETE FROM recstore_private.dispatches
WHERE dispatched_at < clock_timestamp() - make_interval(secs => 86400 * %(days)s);

-- name: forget_requests
DELETE FROM recstore_private.requests
WHERE finished_at < clock_timestamp() - make_interval(secs => 86400 * %(days)s);

-- name: forget_runs
-- Except the newest run of each job, and the runs of generations that still exist.
DELETE FROM recstore_private.runs u
WHERE u.finished_at < clock_timestamp() - make_interval(secs => 86400 * %(days)s)
    AND NOT EXISTS (SELECT FROM recstore_private.generations g WHERE g.run = u.run AND g.state <> 'pruned')
    AND EXISTS (
        SELECT FROM recstore_private.runs n
        WHERE n.recommender_id = u.recommender_id AND n.job = u.job AND n.run > u.run
    );
