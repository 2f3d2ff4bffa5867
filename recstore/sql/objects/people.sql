-- The public functions about users, as those in functions.sql.

-- object: function similar_users
CREATE OR REPLACE FUNCTION {schema}.similar_users(user_id {user_parameter}, k bigint DEFAULT 10, fresh boolean DEFAULT NULL)
RETURNS SETOF {schema}.similar_user
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 10000
ROWS 10
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    live {schema}._generation := {schema}._live(k);
    query {vector};
    nearest {schema}._near_user[];
BEGIN
    IF live.generation IS NULL THEN
        RETURN;
    END IF;
    query := ({schema}._query_vector(live, similar_users.user_id, fresh)).preference;
    IF query IS NULL THEN
        RETURN;
    END IF;
    IF {rated} THEN  -- without the biases, which are no taste
        RETURN QUERY EXECUTE format($query$
            SELECT v.user_id, -({extension}.l2_normalize({extension}.subvector(v.preference, 1, n.factors)) OPERATOR({extension}.<#>)
                {extension}.l2_normalize({extension}.subvector($1, 1, n.factors))) AS score
            FROM {schema}.%I v CROSS JOIN (SELECT count(*)::integer - 1 AS factors FROM {schema}.%I) n
            WHERE v.preference IS NOT NULL AND v.user_id <> $2
            ORDER BY score DESC, v.user_id{user_collate}
            LIMIT $3
            $query$, '_users_' || live.generation, '_basis_' || live.generation)
            USING query, similar_users.user_id, k;
        RETURN;
    END IF;
    -- Unit vectors: the inner product is the cosine, and one index serves this and users_for_item.
    nearest := {schema}._nearest_users(
        live.generation, 'preference', query, k, ARRAY[similar_users.user_id]::{user_type}[], NULL, live.users_ef);
    RETURN QUERY SELECT n.id, -n.distance FROM unnest(nearest) n ORDER BY n.distance, n.id{user_collate};
END
$function$;
COMMENT ON FUNCTION {schema}.similar_users({user_parameter}, bigint, boolean) IS
    'The k users whose tastes are most like this user''s, by cosine. A user who came after the training is folded in, and with fresh one whose rows have changed since. One without usable interactions has none. Needs SELECT on user_vectors and on the source.';

-- object: function users_for_item
CREATE OR REPLACE FUNCTION {schema}.users_for_item(item_id {item_parameter}, k bigint DEFAULT 10)
RETURNS SETOF {schema}.audience_member
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 10000
ROWS 10
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    live {schema}._generation := {schema}._live(k);
    of_ratings CONSTANT double precision[] := {of_ratings};
    query {vector};
BEGIN
    IF live.generation IS NULL THEN
        RETURN;
    END IF;
    EXECUTE format('SELECT v.preference FROM {schema}.%I v WHERE v.item_id = $1', '_items_' || live.generation)
        INTO query USING users_for_item.item_id;
    IF query IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT v.user_id, -n.distance, {score_of_user}'
        ' FROM unnest($1) n JOIN {schema}.%I v ON v.user_id = n.id ORDER BY n.distance, n.id{user_collate}',
        '_users_' || live.generation)
        USING
            {schema}._nearest_users(live.generation, 'preference', query, k, NULL, NULL, live.users_ef),
            live.max_item_length,
            of_ratings;
END
$function$;
COMMENT ON FUNCTION {schema}.users_for_item({item_parameter}, bigint) IS
    'The k users most inclined to this item: an audience. Ranked by the unit user vector, so that heavy users do not head every list. Needs SELECT on user_vectors.';

-- object: function user_vector
CREATE OR REPLACE FUNCTION {schema}.user_vector(user_id {user_parameter}, fresh boolean DEFAULT NULL)
RETURNS {vector}
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 1000
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    live {schema}._generation;
BEGIN
    SELECT * INTO live FROM {schema}._generation;
    IF live.generation IS NULL THEN
        RAISE EXCEPTION '{schema_name} has no live generation yet' USING
            ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Run: recstore retrain {schema_name}';
    END IF;
    RETURN coalesce(({schema}._query_vector(live, user_vector.user_id, fresh)).preference, live.mean_preference::{vector});
END
$function$;
COMMENT ON FUNCTION {schema}.user_vector({user_parameter}, boolean) IS
    'The user''s query vector, for a query of one''s own: ORDER BY preference <#> (SELECT user_vector(..)). Call it in a sub-select, so that it runs once. Never NULL: a user who came after the training is folded in, with fresh also one whose rows have changed since, and one without usable interactions has the mean user direction. Needs SELECT on user_vectors and on the source.';

-- object: function predict
CREATE OR REPLACE FUNCTION {schema}.predict(
    user_id {user_parameter},
    item_id {item_parameter},
    fresh boolean DEFAULT NULL,
    scale text DEFAULT NULL
)
RETURNS double precision
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 1000
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    live {schema}._generation;
    of_ratings CONSTANT double precision[] := {of_ratings};
    person {schema}._query_vector;
    result double precision;
BEGIN
    SELECT * INTO live FROM {schema}._generation;
    IF live.generation IS NULL THEN
        RETURN NULL;
    END IF;
    person := {schema}._query_vector(live, predict.user_id, fresh);
    EXECUTE format(
        'SELECT -(v.preference OPERATOR({extension}.<#>) $2) * $3 FROM {schema}.%I v WHERE v.item_id = $1',
        '_items_' || live.generation)
        INTO result USING predict.item_id, person.preference, person.length * live.max_item_length;
    IF result IS NOT NULL THEN
        result := {score}result{in_range};
    END IF;
    IF scale IS NOT NULL AND result IS NOT NULL THEN
        result := ({schema}._rescaled(
            live, person, ARRAY[ROW(predict.item_id, result, person.reason)::{schema}.recommendation], scale))[1].score;
    END IF;
    RETURN result;
END
$function$;
COMMENT ON FUNCTION {schema}.predict({user_parameter}, {item_parameter}, boolean, text) IS
    'The {predicted} of this user for this item, {predicted_range}. A user who came after the training is folded in, and with fresh one whose rows have changed since. Scale as of recommend(). NULL for an unknown item, and for a user without usable interactions. Needs SELECT on user_vectors and on the source.';

-- object: function explain
CREATE OR REPLACE FUNCTION {schema}.explain(user_id {user_parameter}, item_id {item_parameter}, k bigint DEFAULT 10)
RETURNS SETOF {schema}.explanation
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 10000
ROWS 10
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    live {schema}._generation := {schema}._live(k);
    solved_weight CONSTANT double precision := (
        SELECT w.solved_weight FROM {schema}._weighting w WHERE w.generation = live.generation);
    of_ratings CONSTANT double precision[] := {of_ratings};
    known CONSTANT {schema}._known_item[] := ARRAY(
        SELECT w FROM {schema}._weighted(live, {schema}._pairs_of(explain.user_id)) w);
    item record;
    item_weight double precision;
    influence {extension}.vector;
BEGIN
    IF solved_weight IS NULL OR cardinality(known) = 0 THEN
        RETURN;
    END IF;
    EXECUTE format(
        'SELECT f.whitened, v.preference::{extension}.vector AS preference, v.length FROM {schema}.%I f'
        ' JOIN {schema}.%I v ON v.item_id = f.item_id WHERE f.item_id = $1',
        '_fold_in_' || live.generation, '_items_' || live.generation)
        INTO item USING explain.item_id;

    -- Users are solved against items without their weights in the lists: the weight is |w y| / |y|.
    item_weight := sqrt(-(item.preference OPERATOR({extension}.<#>) item.preference)) * live.max_item_length / item.length;
    -- Hu, Koren and Volinsky, section 5: p_ui is the sum over the user's items j of c_uj y_i^T (Y^T C_u Y + ..)^-1 y_j.
    IF item.whitened IS NOT NULL THEN
        influence := {schema}._solve(
            ARRAY(SELECT w.whitened FROM unnest(known) w), ARRAY(SELECT w.weight FROM unnest(known) w), item.whitened);
    END IF;
    RETURN QUERY
        SELECT w.item_id, w.value,
            coalesce(-(w.whitened OPERATOR({extension}.<#>) influence) * coalesce(w.target, 0) * {unit}solved_weight * item_weight, 0)
            + coalesce(-(w.summand OPERATOR({extension}.<#>) {extension}.subvector(
                item.preference,
                1 + coalesce({extension}.vector_dims(w.whitened), 0),
                {extension}.vector_dims(w.summand)
            )) * live.max_item_length * CASE WHEN w.target IS NULL THEN -1 ELSE 1 END, 0) AS contribution
        FROM unnest(known) w
        WHERE item.preference IS NOT NULL
        ORDER BY contribution DESC, w.item_id{item_collate}
        LIMIT k;
END
$function$;
COMMENT ON FUNCTION {schema}.explain({user_parameter}, {item_parameter}, bigint) IS
    'The k interactions of this user that contribute most to the {predicted} for this item, from current rows. All contributions add up {added_up}. None for an unknown item, or a user without usable interactions. Needs SELECT on the source.';

-- object: function use_search_settings
CREATE OR REPLACE FUNCTION {schema}.use_search_settings()
RETURNS void
LANGUAGE plpgsql
VOLATILE
PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    -- twice what was calibrated: the more a query filters away, the deeper in the index its rows lie
    ef integer := (SELECT least(2 * greatest(g.recommend_ef, g.similar_ef, g.users_ef, 40), 1000) FROM {schema}._generation g);
    callers text;
BEGIN
    GET DIAGNOSTICS callers = PG_CONTEXT;  -- a line for this function, and one for each that calls it
    IF statement_timestamp() = transaction_timestamp() AND current_query() !~ ';\s*\S' AND callers !~ '\n' THEN
        RAISE WARNING 'use_search_settings() has no effect outside a transaction block'
            USING HINT = 'Run it after BEGIN, and the query before COMMIT.';
    END IF;
    PERFORM '[1]'::{extension}.vector;  -- loads the library, before which its settings do not exist
    PERFORM
        set_config('hnsw.ef_search', coalesce(ef, 40)::text, true),
        set_config('hnsw.iterative_scan', 'strict_order', true),  -- nothing sorts after a query of one's own
        set_config('hnsw.max_scan_tuples', '2147483647', true),
        set_config('hnsw.scan_mem_multiplier', '100', true);
END
$function$;
COMMENT ON FUNCTION {schema}.use_search_settings() IS
    'Sets, until the end of this transaction, what pgvector needs for a query written directly on the views: twice the calibrated ef_search, and scans that go on until LIMIT is met. For filters that keep a large part of the items; rank_items() is for the others. Call it after BEGIN.';
