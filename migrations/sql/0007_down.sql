-- No dispatch makes a withheld generation live: the next one removes it.

UPDATE recstore_private.generations
SET state = 'pruning', barrier = 'pruning', barrier_transactions = NULL, barrier_xid = pg_current_xact_id()::text,
    reason = 'was withheld when the schema was downgraded'
WHERE state = 'withheld';
ALTER TABLE recstore_private.generations
    DROP CONSTRAINT ck_generations_state,
    ADD CONSTRAINT ck_generations_state CHECK (state IN ('attached', 'building', 'ready', 'published', 'pruning', 'pruned'));
COMMENT ON TABLE recstore_private.generations IS
    'One training''s complete result. attached: its empty partitions wait; building: being loaded; ready: complete, not yet live; published: has been live; pruning: being removed; pruned: gone, kept as history.';
COMMENT ON VIEW recstore.generations IS
    'Every generation: live, previous (can be rolled back to), ready (waits to go live), next (empty, waits for a training), building, pruning, pruned.';
