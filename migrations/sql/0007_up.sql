-- Generations that are complete and go live only when an operator publishes them.

ALTER TABLE recstore_private.generations
    DROP CONSTRAINT ck_generations_state,
    ADD CONSTRAINT ck_generations_state CHECK (
        state IN ('attached', 'building', 'ready', 'withheld', 'published', 'pruning', 'pruned')
    );
COMMENT ON TABLE recstore_private.generations IS
    'One training''s complete result. attached: its empty partitions wait; building: being loaded; ready: complete, not yet live; withheld: complete, goes live when an operator publishes it; published: has been live; pruning: being removed; pruned: gone, kept as history.';
COMMENT ON VIEW recstore.generations IS
    'Every generation: live, previous (can be rolled back to), ready (waits to go live), withheld (goes live when published), next (empty, waits for a training), building, pruning, pruned.';
