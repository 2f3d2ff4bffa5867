-- Erasures: who was removed from a recommender's generations, and when.

CREATE TABLE recstore_private.erasures (
    recommender_id integer NOT NULL,
    user_id text NOT NULL,
    xid xid8 NOT NULL,
    erased_at timestamptz NOT NULL,
    erased_by text NOT NULL,
    generations bigint[] NOT NULL,
    CONSTRAINT pk_erasures PRIMARY KEY (recommender_id, user_id),
    CONSTRAINT fk_erasures_recommender_id_recommenders FOREIGN KEY (recommender_id)
        REFERENCES recstore_private.recommenders (id) ON DELETE CASCADE
);
COMMENT ON TABLE recstore_private.erasures IS
    'Users who were erased. What was read of the source before, and any file, brings none of them back.';
COMMENT ON COLUMN recstore_private.erasures.xid IS
    'The transaction that erased: what was read in a snapshot that does not show it was read before.';
COMMENT ON COLUMN recstore_private.erasures.generations IS 'Generations that had rows of this user.';

CREATE TABLE recstore_private.completions (
    recommender_id integer NOT NULL,
    completed_at timestamptz,
    CONSTRAINT pk_completions PRIMARY KEY (recommender_id),
    CONSTRAINT fk_completions_recommender_id_recommenders FOREIGN KEY (recommender_id)
        REFERENCES recstore_private.recommenders (id) ON DELETE CASCADE
);
COMMENT ON TABLE recstore_private.completions IS
    'When rows of users were last shown to readers: a generation completed, or lists replaced. Updated in that transaction, and locked FOR SHARE by those that erase, so that each sees what the other did, or fails under REPEATABLE READ.';
INSERT INTO recstore_private.completions (recommender_id) SELECT r.id FROM recstore_private.recommenders r;

CREATE OR REPLACE VIEW recstore.generations AS
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
    g.metrics,
    (
        SELECT count(*)
        FROM recstore_private.erasures e
        WHERE e.recommender_id = r.id AND g.generation = ANY (e.generations)
    ) AS erased
FROM recstore_private.generations g
JOIN recstore_private.recommenders r ON r.id = g.recommender_id
JOIN recstore_private.pointers p ON p.recommender_id = r.id
LEFT JOIN LATERAL (
    SELECT max(f.flipped_at) AS flipped_at
    FROM recstore_private.flips f
    WHERE f.recommender_id = r.id AND f.to_generation = g.generation
) f ON true;
COMMENT ON COLUMN recstore.generations.erased IS 'Users whose rows were erased from it.';
