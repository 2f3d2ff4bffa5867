-- What was erased stays erased, and nothing keeps it from coming back.

DROP VIEW recstore.generations;
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
    f.flipped_at AS last_live_at,
    g.metrics
FROM recstore_private.generations g
JOIN recstore_private.recommenders r ON r.id = g.recommender_id
JOIN recstore_private.pointers p ON p.recommender_id = r.id
LEFT JOIN LATERAL (
    SELECT max(f.flipped_at) AS flipped_at
    FROM recstore_private.flips f
    WHERE f.recommender_id = r.id AND f.to_generation = g.generation
) f ON true;
COMMENT ON VIEW recstore.generations IS
    'Every generation: live, previous (can be rolled back to), ready (waits to go live), withheld (goes live when published), next (empty, waits for a training), building, pruning, pruned.';

DROP TABLE recstore_private.completions;
DROP TABLE recstore_private.erasures;
