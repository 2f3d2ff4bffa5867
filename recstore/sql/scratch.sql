-- Scratch recommenders of measurements.

-- name: scratch_schemas
-- Scratch recommenders of this role, by the schema of their data.
SELECT regexp_replace(n.nspname, '_data$', '') AS name
FROM pg_namespace n
WHERE n.nspname ~ '^scratch_[0-9a-f]{8}_data$'
    AND obj_description(n.oid, 'pg_namespace') = %(mark)s
    AND pg_has_role(n.nspowner, 'USAGE')
ORDER BY 1;
