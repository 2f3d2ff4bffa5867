-- Generations: described, made live, pruned; their indexes.

-- name: insert_generation
INSERT INTO recstore_private.generations (recommender_id, vector_type, dimensions)
VALUES (%(recommender_id)s, %(vector_type)s, %(dimensions)s)
RETURNING generation;

-- name: stored_generation
-- What folding users in needs in addition to a generation's items.
SELECT g.factors, g.users, g.max_item_length, g.definition, g.confidence, g.training, g.held_out, g.fold_in
FROM recstore_private.generations g
WHERE g.generation = %(generation)s;

-- name: exported_generation
-- The description of a complete generation.
SELECT g.generation, g.vector_type, g.users, g.factors, g.definition, g.training, g.confidence, g.fold_in, g.held_out,
    coalesce(g.filters, '[]') AS filters, g.metrics, coalesce(g.snapshot, '{}') AS snapshot, g.mean_preference, g.ready_at,
    g.max_item_length AS longest,
    coalesce(u.versions, '{}') AS versions
FROM recstore_private.generations g
LEFT JOIN recstore_private.runs u ON u.run = g.run
WHERE g.generation = %(generation)s AND g.recommender_id = %(recommender_id)s AND g.state IN ('ready', 'published');

-- name: live_size
-- Size of the live generation's source.
SELECT p.generation, g.definition -> 'source' AS source,
    g.snapshot -> 'users' AS users, g.snapshot -> 'items' AS items, g.snapshot -> 'pairs' AS pairs
FROM recstore_private.pointers p
JOIN recstore_private.generations g ON g.generation = p.generation
WHERE p.recommender_id = %(recommender_id)s;

-- name: select_generations
SELECT g.generation, g.state, g.run, g.vector_type, g.dimensions, g.definition, g.snapshot, g.factors, g.seen_published,
    g.barrier, g.barrier_transactions, g.barrier_xid, g.reason, g.ready_at,
    p.generation = g.generation AS live
FROM recstore_private.generations g
JOIN recstore_private.pointers p ON p.recommender_id = g.recommender_id
WHERE g.recommender_id = %(recommender_id)s AND g.state <> 'pruned'
ORDER BY g.generation;

-- name: start_building
UPDATE recstore_private.generations SET state = 'building', run = %(run)s, definition = %(definition)s
WHERE generation = %(generation)s AND state = 'attached'
RETURNING generation;

-- name: describe_generation
UPDATE recstore_private.generations
SET snapshot = %(snapshot)s, filters = %(filters)s, confidence = %(confidence)s, training = %(training)s,
    factors = %(factors)s, users = %(users)s, items = %(items)s, collapsed_items = %(collapsed_items)s,
    max_item_length = %(max_item_length)s, mean_preference = %(mean_preference)s, seen_published = %(seen_published)s,
    held_out = %(held_out)s, fold_in = %(fold_in)s, metrics = %(metrics)s
WHERE generation = %(generation)s;

-- name: store_calibration
UPDATE recstore_private.generations
SET recommend_ef = %(recommend_ef)s, similar_ef = %(similar_ef)s, users_ef = %(users_ef)s, calibration = %(calibration)s
WHERE generation = %(generation)s;

-- name: select_calibration
SELECT g.recommend_ef, g.similar_ef, g.users_ef FROM recstore_private.generations g WHERE g.generation = %(generation)s;

-- name: try_completions
SELECT FROM recstore_private.completions c WHERE c.recommender_id = %(recommender_id)s FOR NO KEY UPDATE NOWAIT;

-- name: lock_completions
-- Wait for the transactions that erase users, and keep others from beginning to, until the end of this one.
UPDATE recstore_private.completions SET completed_at = clock_timestamp() WHERE recommender_id = %(recommender_id)s;

-- name: source_of_generation
-- The snapshot in which a generation's source was read; NULL for a file, which shows no erasure.
SELECT
    CASE WHEN NOT g.snapshot ? 'imported' THEN g.snapshot ->> 'snapshot' END AS snapshot,
    g.seen_published
FROM recstore_private.generations g
WHERE g.generation = %(generation)s;

-- name: erased_since
-- Users whose erasure a snapshot does not show. One that no snapshot of this server shows came with a restored dump.
SELECT e.user_id
FROM recstore_private.erasures e
WHERE e.recommender_id = %(recommender_id)s
    AND (
        %(snapshot)s::pg_snapshot IS NULL
        OR NOT pg_visible_in_snapshot(e.xid, %(snapshot)s::pg_snapshot)
            AND pg_visible_in_snapshot(e.xid, pg_current_snapshot())
    );

-- name: note_erasures
UPDATE recstore_private.erasures SET generations = generations || %(generation)s::bigint
WHERE recommender_id = %(recommender_id)s AND user_id = ANY (%(users)s) AND %(generation)s <> ALL (generations);

-- name: set_ready
UPDATE recstore_private.generations SET state = 'ready', ready_at = now() WHERE generation = %(generation)s;

-- name: set_withheld
-- Without the time at which it was ready, so that the schedule does not take it for the newest training.
UPDATE recstore_private.generations SET state = 'withheld', reason = %(reason)s WHERE generation = %(generation)s;

-- name: set_reason
UPDATE recstore_private.generations SET reason = %(reason)s WHERE generation = %(generation)s;

-- name: lock_generation
-- Locked by flip, rollback and prune, so that none makes live what another removes.
SELECT g.state FROM recstore_private.generations g
WHERE g.generation = %(generation)s AND g.recommender_id = %(recommender_id)s
FOR UPDATE;

-- name: flip
-- The flip: one row. An older run finds a newer fence and changes nothing, and so does any run while publications are held,
-- except at an operator's word. The hold stays where that names a generation (not a rollback) and a newer one is ready.
UPDATE recstore_private.pointers p
SET generation = %(generation)s,
    flipped_at = now(),
    held_at = CASE WHEN %(hold)s THEN clock_timestamp() WHEN old.newer THEN p.held_at END,
    held_by = CASE WHEN %(hold)s THEN session_user WHEN old.newer THEN p.held_by END
FROM (
    SELECT o.generation, %(run)s::bigint IS NOT NULL AND EXISTS (
        SELECT FROM recstore_private.generations g
        WHERE g.recommender_id = o.recommender_id AND g.state = 'ready' AND g.generation > %(generation)s
    ) AS newer
    FROM recstore_private.pointers o
    WHERE o.recommender_id = %(recommender_id)s
    FOR UPDATE
) old
WHERE p.recommender_id = %(recommender_id)s AND (%(run)s::bigint IS NULL OR p.fence = %(run)s)
    AND (p.held_at IS NULL OR %(release)s)
RETURNING old.generation AS from_generation;

-- name: set_published
UPDATE recstore_private.generations SET state = 'published', reason = NULL, ready_at = coalesce(ready_at, now())
WHERE generation = %(generation)s;

-- name: insert_flip
INSERT INTO recstore_private.flips (recommender_id, from_generation, to_generation, job, run)
VALUES (%(recommender_id)s, %(from_generation)s, %(generation)s, %(job)s, %(run)s);

-- name: release
WITH released AS (
    UPDATE recstore_private.pointers SET held_at = NULL, held_by = NULL
    WHERE recommender_id = %(recommender_id)s AND held_at IS NOT NULL
    RETURNING recommender_id, generation
), cleared AS (
    UPDATE recstore_private.generations g SET reason = NULL
    FROM released r
    WHERE g.recommender_id = r.recommender_id AND g.state = 'ready' AND starts_with(g.reason, 'is held')
)
SELECT r.generation FROM released r;

-- name: select_pointer
SELECT p.generation, p.flipped_at FROM recstore_private.pointers p WHERE p.recommender_id = %(recommender_id)s;

-- name: retired_long_enough
-- Seconds since the generation was last live; NULL where it never was. A time in the future comes from a wrong clock: its
-- distance counts, so that it holds a generation no longer than twice the retention.
SELECT abs(extract(epoch FROM clock_timestamp() - max(f.flipped_at)))::float8 AS seconds
FROM recstore_private.flips f
WHERE f.recommender_id = %(recommender_id)s AND f.from_generation = %(generation)s;

-- name: set_pruning
UPDATE recstore_private.generations
SET state = 'pruning', barrier = 'pruning', barrier_transactions = NULL, barrier_xid = pg_current_xact_id()::text, reason = %(reason)s
WHERE generation = %(generation)s AND state IN ('attached', 'building', 'ready', 'withheld', 'published');

-- name: set_pruned
UPDATE recstore_private.generations
SET state = 'pruned', barrier = NULL, barrier_transactions = NULL, barrier_xid = NULL, mean_preference = NULL
WHERE generation = %(generation)s;

-- name: index_progress
SELECT p.tuples_done AS done, p.tuples_total AS total
FROM pg_stat_progress_create_index p
WHERE p.pid = %(pid)s;

-- name: generation_size
SELECT g.users, g.items, g.collapsed_items, g.seen_published, g.definition -> 'source' AS source,
    (g.training ->> 'solved_weight') IS NOT NULL AS folds_in
FROM recstore_private.generations g
WHERE g.generation = %(generation)s;

-- name: refreshed_generation
SELECT g.max_item_length, (g.training ->> 'solved_weight')::float8 AS solved_weight
FROM recstore_private.generations g
WHERE g.generation = %(generation)s;

-- name: store_refreshed
UPDATE recstore_private.generations
SET items = items + %(added)s, held_out = %(held_out)s
WHERE generation = %(generation)s;

-- name: note_refreshed
UPDATE recstore_private.generations g SET snapshot = g.snapshot || jsonb_build_object('refreshed', %(refreshed)s::jsonb)
WHERE g.generation = %(generation)s;

-- name: refreshed_since
-- The size of a generation, and when it was calibrated last.
SELECT g.users, g.items, (
    SELECT coalesce(max(u.finished_at), g.ready_at) FROM recstore_private.runs u
    WHERE u.generation = g.generation AND u.stages @> '[{"stage": "calibrate"}]'
) AS calibrated_at
FROM recstore_private.generations g
WHERE g.generation = %(generation)s;

-- name: indexes_of
-- The indexes of these tables; m is HNSW's, as it was built.
SELECT
    i.relname AS name,
    x.indisvalid AS valid,
    m.amname = 'hnsw' AS hnsw,
    (SELECT split_part(o.option, '=', 2)::integer FROM unnest(i.reloptions) AS o (option) WHERE o.option LIKE 'm=%%') AS m
FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_am m ON m.oid = i.relam
WHERE x.indrelid IN (SELECT to_regclass(t.name) FROM unnest(%(tables)s::text[]) AS t (name))
ORDER BY i.relname;

-- name: lacking_indexes
-- Those of these indexes of a schema that are missing or invalid.
SELECT n.name
FROM unnest(%(names)s::text[]) AS n (name)
WHERE NOT EXISTS (
    SELECT
    FROM pg_class c
    JOIN pg_index i ON i.indexrelid = c.oid
    WHERE c.relnamespace = to_regnamespace(%(quoted)s) AND c.relname = n.name AND i.indisvalid
)
ORDER BY n.name;
