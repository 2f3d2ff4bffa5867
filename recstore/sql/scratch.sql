-- Scratch recommenders of measurements.

-- name: scratch_schemas
-- Scratch recommenders of this role, by the schema of their data, and whether no session holds their lock any more.
SELECT
    s.name,
    NOT EXISTS (
        SELECT FROM pg_locks l
        WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.classid = %(namespace)s
            AND l.objid = ('x' || right(s.name, 8))::bit(32)::bigint::oid
            AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
    ) AS abandoned
FROM (
    SELECT regexp_replace(n.nspname, '_data$', '') AS name
    FROM pg_namespace n
    WHERE n.nspname ~ '^scratch_[0-9a-f]{8}_data$'
        AND obj_description(n.oid, 'pg_namespace') = %(mark)s
        AND pg_has_role(n.nspowner, 'USAGE')
) s
ORDER BY 1;

-- name: lock_scratch
-- The second key is the number in the name.
SELECT pg_advisory_lock(%(namespace)s, ('x' || right(%(name)s, 8))::bit(32)::integer);
