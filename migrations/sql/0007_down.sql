-- A withheld generation is ready: the next dispatch makes it live if it is the newest.

UPDATE recstore_private.generations SET state = 'ready', ready_at = now() WHERE state = 'withheld';
ALTER TABLE recstore_private.generations
    DROP CONSTRAINT ck_generations_state,
    ADD CONSTRAINT ck_generations_state CHECK (state IN ('attached', 'building', 'ready', 'published', 'pruning', 'pruned'));
COMMENT ON TABLE recstore_private.generations IS
    'One training''s complete result. attached: its empty partitions wait; building: being loaded; ready: complete, not yet live; published: has been live; pruning: being removed; pruned: gone, kept as history.';
COMMENT ON VIEW recstore.generations IS
    'Every generation: live, previous (can be rolled back to), ready (waits to go live), next (empty, waits for a training), building, pruning, pruned.';
