-- The public functions. All run with the caller's rights and read the pointer and the vectors in the caller's snapshot;
-- dynamic SQL goes to the live generation's own tables, so no plan goes stale and no other generation is locked.

-- object: function generation
CREATE OR REPLACE FUNCTION {schema}.generation()
RETURNS bigint
LANGUAGE sql
STABLE
PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
    SELECT g.generation FROM {schema}._generation g
$function$;
COMMENT ON FUNCTION {schema}.generation() IS
    'Number of the live generation, to log beside an impression. NULL before the first publication.';

-- object: function _live
CREATE OR REPLACE FUNCTION {schema}._live(k bigint)
RETURNS {schema}._generation
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    live {schema}._generation;
BEGIN
    IF k IS NULL OR k NOT BETWEEN 1 AND 2147483647 THEN
        RAISE EXCEPTION 'k is the number of rows wanted and must be from 1 to 2147483647, not %', coalesce(k::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT * INTO live FROM {schema}._generation;
    RETURN live;
END
$function$;
COMMENT ON FUNCTION {schema}._live(bigint) IS
    'The live generation''s row, all NULL before the first publication; refuses a k out of range. Used by the public functions.';

-- object: function popular_items
CREATE OR REPLACE FUNCTION {schema}.popular_items(
    k bigint DEFAULT 10,
    "window" interval DEFAULT NULL,
    half_life interval DEFAULT NULL,
    exclude_items {item_parameter}[] DEFAULT NULL
)
RETURNS SETOF {schema}.popular_item
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 1000
ROWS 10
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    live {schema}._generation := {schema}._live(k);
BEGIN
    IF live.generation IS NULL THEN
        RETURN;
    END IF;
    IF "window" IS NOT NULL OR half_life IS NOT NULL THEN
        RETURN QUERY
            SELECT v.item_id, v.users::integer, v.views
            FROM {schema}._counted_since(NULL, "window", half_life) v
            WHERE v.item_id <> ALL ({of_exclude_items}){eligible}
            ORDER BY
                CASE WHEN half_life IS NULL THEN v.users ELSE v.views END DESC,
                CASE WHEN half_life IS NULL THEN v.views ELSE v.users END DESC,
                v.item_id{item_collate}
            LIMIT k;
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT v.item_id, v.users, v.views FROM {schema}.%I v'
        ' WHERE v.item_id <> ALL ($2){eligible} ORDER BY v.users DESC, v.views DESC, v.item_id{item_collate} LIMIT $1',
        '_items_' || live.generation)
        USING k, {of_exclude_items};
END
$function$;
COMMENT ON FUNCTION {schema}.popular_items(bigint, interval, interval, {item_parameter}[]) IS
    'The k candidates with the most distinct users, then the most views, then by id, without exclude_items: in the training snapshot, or with a window or a half-life in the source now, by last_at. With a half-life each user counts 2^(-age / half-life), and views is their sum. Those two need SELECT on interactions and on the source.';

-- object: function similar_items
CREATE OR REPLACE FUNCTION {schema}.similar_items(
    item_id {item_parameter},
    k bigint DEFAULT 10,
    min_users bigint DEFAULT 3,
    exclude_items {item_parameter}[] DEFAULT NULL
)
RETURNS SETOF {schema}.similar_item
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
    nearest {schema}._near_item[];
BEGIN
    IF live.generation IS NULL THEN
        RETURN;
    END IF;
    EXECUTE format('SELECT v.embedding FROM {schema}.%I v WHERE v.item_id = $1', '_items_' || live.generation)
        INTO query USING similar_items.item_id;
    IF query IS NULL THEN
        RETURN;
    END IF;
    nearest := {schema}._nearest_items(
        live.generation, 'embedding', query, k, {of_exclude_items} || similar_items.item_id::{item_type}, min_users, live.similar_ef);
    RETURN QUERY SELECT n.id, 1 - n.distance FROM unnest(nearest) n ORDER BY n.distance, n.id{item_collate};
END
$function$;
COMMENT ON FUNCTION {schema}.similar_items({item_parameter}, bigint, bigint, {item_parameter}[]) IS
    'The k items most similar to this one by cosine, among items with at least min_users distinct users, without exclude_items. An unknown item has none.';

-- object: function _seen_published
-- With the owner's rights, so that no reader needs to read the table of everybody's seen items. Granted with user_vectors.
CREATE OR REPLACE FUNCTION {schema}._seen_published(user_id {user_parameter})
RETURNS {item_type}[]
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
SECURITY DEFINER
COST 1000
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    seen {item_type}[];
BEGIN
    EXECUTE format(
        'SELECT array_agg(s.item_id) FROM {schema}.%I s WHERE s.user_id = $1',
        '_seen_' || (SELECT g.generation FROM {schema}._generation g WHERE g.seen_published))
        INTO seen USING _seen_published.user_id;
    RETURN seen;
END
$function$;
REVOKE EXECUTE ON FUNCTION {schema}._seen_published({user_parameter}) FROM PUBLIC;
COMMENT ON FUNCTION {schema}._seen_published({user_parameter}) IS
    'The items that this user had seen when the live generation was trained, where it publishes them. Used by seen().';

-- object: function seen
CREATE OR REPLACE FUNCTION {schema}.seen(user_id {user_parameter})
RETURNS SETOF {item_type}
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 1000
ROWS 100
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan  -- as _left_out
AS $function$
DECLARE
    -- the column's collation decides, not the argument's
    wanted {user_parameter}{user_default_collate} := user_id;
BEGIN
    IF (SELECT g.seen_published FROM {schema}._generation g) THEN
        RETURN QUERY SELECT unnest({schema}._seen_published(wanted));
    ELSE
        RETURN QUERY {seen};
    END IF;
END
$function$;
COMMENT ON FUNCTION {schema}.seen({user_parameter}) IS
    'The items that this user has seen, which recommend() leaves out: live from the source with the caller''s rights, or as published with the generation. An id may come twice. Needs SELECT on the source, or on user_vectors where seen items are published.';

-- object: function _left_out
-- One user's rows: planned anew for each user, reading them takes longer to plan than to execute. PostgreSQL does so wherever
-- it knows that this user has fewer rows than most (docs/decisions/0002).
CREATE OR REPLACE FUNCTION {schema}._left_out(user_id {user_parameter}, seen boolean, published boolean)
RETURNS {item_type}[]
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 1000
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $function$
DECLARE
    -- the column's collation decides, not the argument's
    wanted {user_parameter}{user_default_collate} := user_id;
    items {item_type}[];
BEGIN
    IF seen AND published THEN
        items := {schema}._seen_published(wanted);
    ELSIF seen THEN
        items := ARRAY({seen});
    END IF;
    RETURN items{of_exclusions};
END
$function$;
COMMENT ON FUNCTION {schema}._left_out({user_parameter}, boolean, boolean) IS
    'What recommend() leaves out for this user: the items of seen(), if wanted, published or not, and the user''s exclusions.';

-- object: function _rescaled
CREATE OR REPLACE FUNCTION {schema}._rescaled(
    live {schema}._generation,
    person {schema}._query_vector,
    listed {schema}.recommendation[],
    scale text
)
RETURNS {schema}.recommendation[]
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 1000
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    rescaled {schema}.recommendation[];
BEGIN
    IF scale NOT IN ('unit', 'rank') THEN
        RAISE EXCEPTION 'there is no scale %', quote_literal(scale) USING
            ERRCODE = 'invalid_parameter_value',
            HINT = 'Choose unit, from 0 to 1 over all items, or rank, 1 for the best of all items; or none.';
    END IF;
    EXECUTE format($query$
        SELECT array_agg(ROW(f.item_id, s.score, f.reason)::{schema}.recommendation ORDER BY f.place)
        FROM unnest($1) WITH ORDINALITY f (item_id, score, reason, place)
        LEFT JOIN (
            SELECT v.item_id, CASE $2
                WHEN 'rank' THEN rank() OVER (ORDER BY v.score DESC)
                ELSE coalesce(
                    (v.score - min(v.score) OVER ()) / nullif(max(v.score) OVER () - min(v.score) OVER (), 0), 1)
            END AS score
            FROM (
                SELECT i.item_id, -(i.preference OPERATOR({extension}.<#>) $3) AS score
                FROM {schema}.%I i WHERE i.preference IS NOT NULL
            ) v
        ) s ON s.item_id = f.item_id
        $query$, '_items_' || live.generation)
        INTO rescaled USING listed, scale, person.preference;
    RETURN coalesce(rescaled, listed);
END
$function$;
COMMENT ON FUNCTION {schema}._rescaled({schema}._generation, {schema}._query_vector, {schema}.recommendation[], text) IS
    'These recommendations with scores relative to those of all items of the generation for this person. Compares all items. Used by the public functions.';

-- object: function _predicted_items
CREATE OR REPLACE FUNCTION {schema}._predicted_items(
    live {schema}._generation,
    person {schema}._query_vector,
    k bigint,
    left_out {item_type}[],
    scale text
)
RETURNS {schema}.recommendation[]
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 10000
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    of_ratings CONSTANT double precision[] := {of_ratings};
    nearest CONSTANT {schema}._near_item[] := {schema}._nearest_items(
        live.generation, 'preference', person.preference, k, left_out, NULL, live.recommend_ef);
    listed CONSTANT {schema}.recommendation[] := ARRAY(
        SELECT ROW(n.id, {score}-n.distance * person.length * live.max_item_length{in_range}, person.reason)::{schema}.recommendation
        FROM unnest(nearest) n ORDER BY n.distance, n.id{item_collate});
BEGIN
    RETURN CASE WHEN scale IS NULL THEN listed ELSE {schema}._rescaled(live, person, listed, scale) END;
END
$function$;
COMMENT ON FUNCTION {schema}._predicted_items({schema}._generation, {schema}._query_vector, bigint, {item_type}[], text) IS
    'The k items with the highest {predicted} for this vector, without left_out. Used by the public functions.';

-- object: function recommend
CREATE OR REPLACE FUNCTION {schema}.recommend(
    user_id {user_parameter},
    k bigint DEFAULT 10,
    exclude_seen boolean DEFAULT true,
    exclude_items {item_parameter}[] DEFAULT NULL,
    fresh boolean DEFAULT NULL,
    scale text DEFAULT NULL
)
RETURNS SETOF {schema}.recommendation
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 20000
ROWS 10
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    live {schema}._generation := {schema}._live(k);
    person {schema}._query_vector;
    excluded {item_type}[] := {of_exclude_items};
    steps text[] := {steps};
    step text;
    first boolean;
    found {schema}.recommendation[];
BEGIN
    IF live.generation IS NULL THEN
        RETURN;
    END IF;

    excluded := excluded
        || {schema}._left_out(recommend.user_id, exclude_seen IS DISTINCT FROM false, live.seen_published);
    person := {schema}._query_vector(live, recommend.user_id, fresh);
    -- A user of the training comes before every step, folded in anew or not.
    first := person.reason = 'trained';
    IF person.reason = 'fold_in' AND coalesce(fresh, {fresh}) THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM {schema}.%I v WHERE v.user_id = $1)', '_users_' || live.generation)
            INTO first USING recommend.user_id;
    END IF;
    IF first THEN
        steps := person.reason || array_remove(steps, 'fold_in');
    END IF;
    FOREACH step IN ARRAY steps LOOP
        IF step IN ('trained', 'fold_in') THEN
            CONTINUE WHEN person.preference IS NULL;
            found := {schema}._predicted_items(live, person, k, excluded, scale);
        ELSE
            found := {schema}._fallback_items(live, step, recommend.user_id, k, excluded);
        END IF;
        RETURN QUERY SELECT f.* FROM unnest(found) f;
        k := k - cardinality(found);
        EXIT WHEN k = 0;
        excluded := excluded || ARRAY(SELECT f.item_id FROM unnest(found) f);
    END LOOP;
END
$function$;
COMMENT ON FUNCTION {schema}.recommend({user_parameter}, bigint, boolean, {item_parameter}[], boolean, text) IS
    'The k items with the highest {predicted} for this user, without exclude_items and this user''s exclusions, and without what seen() returns unless exclude_seen is false. A user who came after the training is folded in from the current rows of interactions (reason: fold_in); with fresh, so is one whose rows have changed since. With scale, scores are relative to all items: unit (0 to 1) or rank (1 is the best). One without usable rows, and the end of a short list, gets the items of the steps that the fallback names (reason: the step). Needs SELECT on user_vectors and on the source.';

-- object: function recommend_for_items
CREATE OR REPLACE FUNCTION {schema}.recommend_for_items(
    item_ids {item_parameter}[],
    weights double precision[] DEFAULT NULL,
    k bigint DEFAULT 10,
    exclude_items {item_parameter}[] DEFAULT NULL,
    scale text DEFAULT NULL
)
RETURNS SETOF {schema}.recommendation
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 20000
ROWS 10
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    live {schema}._generation := {schema}._live(k);
    excluded {item_type}[] := {of_exclude_items} || {of_item_ids};
    max_value CONSTANT double precision := (SELECT w.max_value FROM {schema}._weighting w);
    of_ratings CONSTANT double precision[] := {of_ratings};
    pairs {schema}._pairs;
    person {schema}._query_vector;
    -- A role that may not see people gets the popular items of the training.
    sees_people CONSTANT boolean := has_table_privilege('{schema}.interactions', 'SELECT');
    steps text[] := CASE WHEN sees_people THEN array_remove({steps}, 'fold_in') ELSE ARRAY['popular'] END;
    step text;
    found {schema}.recommendation[];
BEGIN
    IF cardinality(weights) <> coalesce(cardinality(item_ids), 0) THEN
        RAISE EXCEPTION 'weights has % elements, but item_ids has %', cardinality(weights), coalesce(cardinality(item_ids), 0)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give each item one weight, or no weights at all.';
    END IF;
    IF weights && '{NaN,Infinity,-Infinity}' THEN
        RAISE EXCEPTION 'weights contains NaN or Infinity' USING
            ERRCODE = 'invalid_parameter_value',
            HINT = 'A weight is a number: how much the item is liked, or below 0 disliked.';
    END IF;
    IF live.generation IS NULL THEN
        RETURN;
    END IF;

    SELECT array_agg(p.item_id), array_agg(greatest(least(p.value, max_value), -max_value))
    INTO pairs
    FROM (
        SELECT w.item_id::{item_type} AS item_id, {given_weights} AS value
        FROM (
            SELECT u.item_id,
                CASE WHEN weights IS NULL THEN {given_weight} ELSE least(greatest(u.weight, -1e30), 1e30) END AS weight
            FROM unnest(item_ids, weights) u (item_id, weight)
            WHERE u.item_id {item_fits} AND (weights IS NULL OR u.weight <> 0 OR u.weight = 0 AND {rated})
        ) w
        GROUP BY w.item_id
        HAVING {rated} OR abs(sum(w.weight)) / sum(abs(w.weight)) > 1e-12
    ) p;
    person := {schema}._fold_in(live, pairs);
    IF person.preference IS NOT NULL THEN
        steps := person.reason || steps;
    END IF;
    FOREACH step IN ARRAY steps LOOP
        CASE
            WHEN step = person.reason THEN
                found := {schema}._predicted_items(live, person, k, excluded, scale);
            WHEN sees_people THEN
                found := {schema}._fallback_items(live, step, NULL, k, excluded);
            ELSE
                found := ARRAY(
                    SELECT ROW(p.item_id, p.users / live.users::double precision, step)::{schema}.recommendation
                    FROM {schema}.popular_items(k => recommend_for_items.k, exclude_items => excluded) p);
        END CASE;
        RETURN QUERY SELECT f.* FROM unnest(found) f;
        k := k - cardinality(found);
        EXIT WHEN k = 0;
        excluded := excluded || ARRAY(SELECT f.item_id FROM unnest(found) f);
    END LOOP;
END
$function$;
COMMENT ON FUNCTION {schema}.recommend_for_items({item_parameter}[], double precision[], bigint, {item_parameter}[], text) IS
    'The k items for a person with these items: an anonymous visitor''s clicks, a basket, examples. {weights_are} Unknown ids and NULLs are ignored. If no liked item is known, and at the end of a short list, come the items of the steps that the fallback names, for no user in particular; for a role without SELECT on interactions, popular items of the training. Without the given items and exclude_items. Scale as of recommend().';

-- object: function rank_items
CREATE OR REPLACE FUNCTION {schema}.rank_items(
    user_id {user_parameter},
    item_ids {item_parameter}[],
    scale text DEFAULT NULL
)
RETURNS SETOF {schema}.ranked_item
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 10000
ROWS 100
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    live {schema}._generation;
    of_ratings CONSTANT double precision[] := {of_ratings};
    person {schema}._query_vector;
    ranked {schema}.ranked_item[];
    rescaled {schema}.recommendation[];
BEGIN
    SELECT * INTO live FROM {schema}._generation;
    IF live.generation IS NULL THEN
        RETURN QUERY
            SELECT u.id, NULL::double precision, NULL::text
            FROM unnest(item_ids) WITH ORDINALITY u (id, place) WHERE u.id IS NOT NULL GROUP BY u.id ORDER BY min(u.place);
        RETURN;
    END IF;
    person := {schema}._query_vector(live, rank_items.user_id);
    EXECUTE format($query$
        SELECT array_agg(ROW(
                r.id,
                CASE WHEN $2 IS NULL THEN r.score WHEN r.score IS NOT NULL THEN {score_of_row} END,
                CASE WHEN r.score IS NOT NULL THEN $5 END
            )::{schema}.ranked_item
            ORDER BY r.score DESC NULLS LAST, r.views DESC, CASE WHEN r.score IS NOT NULL THEN r.id END{item_collate}, r.place)
        FROM (
            SELECT
                g.id,
                g.place,
                CASE WHEN $2 IS NULL THEN v.users / $6 ELSE -(v.preference OPERATOR({extension}.<#>) $2) * $3 * $4 END AS score,
                CASE WHEN $2 IS NULL THEN v.views END AS views
            FROM (
                SELECT u.id, min(u.place) AS place
                FROM unnest($1) WITH ORDINALITY u (id, place) WHERE u.id IS NOT NULL GROUP BY u.id
            ) g
            LEFT JOIN {schema}.%I v ON v.item_id = g.id
        ) r
        $query$, '_items_' || live.generation)
        INTO ranked
        USING
            item_ids,
            person.preference,
            person.length,
            live.max_item_length,
            coalesce(person.reason, 'popular'),
            live.users::double precision,
            of_ratings;
    IF scale IS NULL OR person.preference IS NULL THEN
        RETURN QUERY SELECT r.* FROM unnest(ranked) r;
        RETURN;
    END IF;
    rescaled := {schema}._rescaled(
        live,
        person,
        ARRAY(SELECT ROW(r.item_id, r.score, r.reason)::{schema}.recommendation FROM unnest(ranked) r WHERE r.score IS NOT NULL),
        scale);
    RETURN QUERY
        SELECT r.item_id, s.score, r.reason
        FROM unnest(ranked) WITH ORDINALITY r (item_id, score, reason, place)
        LEFT JOIN unnest(rescaled) s (item_id, score, reason) ON s.item_id = r.item_id
        ORDER BY r.place;
END
$function$;
COMMENT ON FUNCTION {schema}.rank_items({user_parameter}, {item_parameter}[], text) IS
    'These items, each once, in this user''s order, by comparing all: a search page, a category page. Candidates or not, seen or not. Unknown items come last, in the given order, with a NULL score. For a user without usable interactions by popularity. Scale as of recommend(). Needs SELECT on user_vectors and on the source.';
