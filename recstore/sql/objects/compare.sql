-- Two complete generations compared by the lists of the functions themselves, as a session with the setting
-- recstore.generation (a canary) gets them.

-- object: function _compared_lists
CREATE OR REPLACE FUNCTION {schema}._compared_lists(a bigint, b bigint, k bigint, users bigint)
RETURNS SETOF {schema}._two_lists
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 10000000
ROWS 1000
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    shown CONSTANT text := coalesce(current_setting('recstore.generation', true), '');
    complete boolean;
    number bigint;
    sampled {user_type}[];
    people {user_type}[];
    lists_a {schema}._two_lists[];
    lists_b {schema}._two_lists[];
BEGIN
    IF users IS NULL OR users < 1 THEN
        RAISE EXCEPTION 'users is the number of users to compare and must be at least 1, not %', coalesce(users::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOREACH number IN ARRAY ARRAY[a, b] LOOP
        PERFORM set_config('recstore.generation', number::text, true);
        SELECT g.generation = number INTO complete FROM {schema}._generation g;
        IF complete IS NOT TRUE THEN
            RAISE EXCEPTION '{schema_name} has no complete generation %', coalesce(number::text, 'NULL') USING
                ERRCODE = 'invalid_parameter_value',
                HINT = 'Run: recstore generations {schema_name}';
        END IF;
        -- The hash chooses the same users each time, and of the users of both the smallest hashes of each are enough.
        EXECUTE format(
            'SELECT array_agg(s.user_id) FROM (SELECT v.user_id FROM {schema}.%I v'
            ' ORDER BY hashtextextended(v.user_id::text COLLATE "C", 0), v.user_id LIMIT $1) s', '_users_' || number)
            INTO sampled USING users;
        people := people || sampled;
    END LOOP;
    people := ARRAY(
        SELECT p.user_id FROM unnest(people) p (user_id)
        GROUP BY p.user_id ORDER BY hashtextextended(p.user_id::text COLLATE "C", 0), p.user_id LIMIT users);

    lists_b := ARRAY(
        SELECT ROW(p.user_id, NULL, ARRAY(SELECT r.item_id FROM {schema}.recommend(p.user_id, k) r))::{schema}._two_lists
        FROM unnest(people) p (user_id));
    PERFORM set_config('recstore.generation', a::text, true);
    lists_a := ARRAY(
        SELECT ROW(p.user_id, ARRAY(SELECT r.item_id FROM {schema}.recommend(p.user_id, k) r), NULL)::{schema}._two_lists
        FROM unnest(people) p (user_id));
    PERFORM set_config('recstore.generation', shown, true);
    RETURN QUERY SELECT l.user_id, l.a, m.b FROM unnest(lists_a) l JOIN unnest(lists_b) m ON m.user_id = l.user_id;
END
$function$;
COMMENT ON FUNCTION {schema}._compared_lists(bigint, bigint, bigint, bigint) IS
    'The lists of a sample of users in two generations. Used by the public functions.';

-- object: function compare_generations
CREATE OR REPLACE FUNCTION {schema}.compare_generations(a bigint, b bigint, k bigint DEFAULT 10, users bigint DEFAULT 1000)
RETURNS {schema}.comparison
LANGUAGE sql
STABLE
PARALLEL UNSAFE
COST 10000000
SET search_path = pg_catalog, pg_temp
AS $function$
    SELECT
        count(*),
        avg(s.overlap),
        percentile_cont(0.1) WITHIN GROUP (ORDER BY s.overlap),
        percentile_cont(0.5) WITHIN GROUP (ORDER BY s.overlap),
        percentile_cont(0.9) WITHIN GROUP (ORDER BY s.overlap),
        count(*) FILTER (WHERE s.first_changed)
    FROM (
        SELECT
            (SELECT count(*) FROM unnest(l.a) i (item_id) WHERE i.item_id = ANY (l.b))::double precision
                / nullif(greatest(cardinality(l.a), cardinality(l.b)), 0) AS overlap,
            l.a[1] IS DISTINCT FROM l.b[1] AS first_changed
        FROM {schema}._compared_lists(a, b, k, users) l
    ) s
$function$;
COMMENT ON FUNCTION {schema}.compare_generations(bigint, bigint, bigint, bigint) IS
    'How far the recommendations of two complete generations agree, live or not, for a sample of users that is always the same: the mean and quantiles of the overlap of their lists of k items, and how many users have another first item. Calls recommend() twice for each user. Needs SELECT on user_vectors and on the source.';

-- object: function compare_items
CREATE OR REPLACE FUNCTION {schema}.compare_items(a bigint, b bigint, k bigint DEFAULT 10, users bigint DEFAULT 1000)
RETURNS SETOF {schema}.compared_item
LANGUAGE sql
STABLE
PARALLEL UNSAFE
COST 10000000
ROWS 1000
SET search_path = pg_catalog, pg_temp
AS $function$
    SELECT i.item_id, count(*) FILTER (WHERE i.in_a), count(*) FILTER (WHERE NOT i.in_a)
    FROM {schema}._compared_lists(a, b, k, users) l
    CROSS JOIN LATERAL (SELECT unnest(l.a), true UNION ALL SELECT unnest(l.b), false) i (item_id, in_a)
    GROUP BY i.item_id
    HAVING count(*) FILTER (WHERE i.in_a) <> count(*) FILTER (WHERE NOT i.in_a)
    ORDER BY abs(count(*) FILTER (WHERE i.in_a) - count(*) FILTER (WHERE NOT i.in_a)) DESC, i.item_id{item_collate}
$function$;
COMMENT ON FUNCTION {schema}.compare_items(bigint, bigint, bigint, bigint) IS
    'The items that are in more or fewer lists of generation b than of generation a, the largest change first, for the users of compare_generations().';
