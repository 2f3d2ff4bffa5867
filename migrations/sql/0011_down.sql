-- The schedule of trainings alone.

DROP VIEW recstore.status;
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
COMMENT ON VIEW recstore.status IS
    'One row per recommender: what is live, what runs, what waits to go live and for whom, how the last training went, what is asked for and scheduled.';
