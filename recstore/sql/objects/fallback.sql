-- The steps of recommend() for a user whom the training does not know, or who has fewer than k items: popular, trending, a SELECT
-- of the application's. Definition.fallback orders them.

-- object: function _counted_since
-- Users of each item after `since`: those in the window that ends now, and those before it. Rows without a usable value or a time do
-- not count; a time in the future counts as now.
CREATE OR REPLACE FUNCTION {schema}._counted_since(since timestamptz, "window" interval, half_life interval)
RETURNS TABLE (item_id {item_type}, users bigint, views double precision, earlier bigint)
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 100000
ROWS 1000
SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    seconds double precision := extract(epoch FROM half_life);
    begun timestamptz;
BEGIN
    IF "window" <= interval '0' OR half_life <= interval '0' THEN
        RAISE EXCEPTION 'window and half_life are periods of time and must be above 0' USING
            ERRCODE = 'invalid_parameter_value',
            HINT = 'For example: popular_items(10, ''7 days'')';
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_attribute a
        WHERE a.attrelid = to_regclass('{schema}.interactions') AND a.attname = 'last_at' AND NOT a.attisdropped
    ) THEN
        RAISE EXCEPTION 'the source of {schema_name} has no times to count by' USING
            ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Give it a column last_at: recstore alter {schema_name} --last-at COLUMN, or a query that selects one.';
    END IF;
    begun := CASE WHEN "window" < interval '5000 years' THEN now() - "window" ELSE '-infinity' END;
    RETURN QUERY
        SELECT
            p.item_id,
            count(*) FILTER (WHERE p.last_at > begun),
            coalesce(sum(CASE
                WHEN seconds IS NULL THEN p.value
                ELSE 2 ^ greatest(extract(epoch FROM least(p.last_at, now()) - now()) / seconds, -1000)
            END) FILTER (WHERE p.last_at > begun), 0),
            count(*) FILTER (WHERE p.first_at <= begun)
        FROM (
            SELECT
                i.item_id,
                max(i.last_at)::timestamptz AS last_at,
                min(i.last_at)::timestamptz AS first_at,
                {views} AS value
            FROM (
                SELECT i.user_id, i.item_id, {bounded_value} AS value, i.last_at
                FROM {schema}.interactions i
                WHERE {finite_value}
            ) i
            WHERE i.last_at > coalesce(since, begun) AND i.user_id IS NOT NULL AND i.item_id IS NOT NULL
                AND i.value > {above}
            GROUP BY i.user_id, i.item_id
            HAVING {rated} OR sum(i.value) / 1e-12 > sum(abs(i.value))  -- what is left of returns may be a rounding error
        ) p
        GROUP BY p.item_id;
END
$function$;
COMMENT ON FUNCTION {schema}._counted_since(timestamptz, interval, interval) IS
    'Distinct users and views of each item in the source now, by last_at; with a half-life views is the sum of 2^(-age / half-life) over users. Used by the public functions.';

-- object: function _fallback_items
CREATE OR REPLACE FUNCTION {schema}._fallback_items(
    live {schema}._generation,
    step text,
    user_id {user_parameter},
    k bigint,
    left_out {item_type}[]
)
RETURNS {schema}.recommendation[]
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 10000
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    -- the column's collation decides, not the argument's
    wanted {user_parameter}{user_default_collate} := user_id;
    period CONSTANT interval := {window};
    half_life CONSTANT interval := {half_life};
    listed_sql CONSTANT text := $query$
        SELECT ARRAY(
            SELECT ROW(v.item_id, v.score, $4)::{schema}.recommendation
            FROM (%s) v
            WHERE v.item_id <> ALL ($1){eligible}
            ORDER BY v.score DESC, v.tie DESC, v.item_id{item_collate}
            LIMIT $2)
        $query$;
    found {schema}.recommendation[] := '{}';
    more {schema}.recommendation[];
BEGIN
    CASE step
        WHEN 'query' THEN
            EXECUTE format(listed_sql, $query$
                SELECT f.item_id::{item_type} AS item_id, max(f.score) AS score, 0 AS tie
                FROM {schema}._fallback f
                WHERE f.item_id IS NOT NULL AND abs(f.score) < 'Infinity' AND (f.user_id IS NULL OR f.user_id = $3)
                GROUP BY 1
                $query$)
                INTO found USING left_out, k, wanted, step;
        WHEN 'trending' THEN  -- by standard errors of a binomial distribution
            EXECUTE format(listed_sql, $query$
                SELECT t.item_id, (t.users - t.n * t.p) / sqrt(t.n * t.p * (1 - t.p)) AS score, t.users AS tie
                FROM (
                    SELECT
                        c.item_id,
                        c.users,
                        c.users + c.earlier AS n,
                        ((sum(c.users) OVER () + 1) / (sum(c.users + c.earlier) OVER () + 2))::double precision AS p
                    FROM {schema}._counted_since(now() - 2 * $3, $3, NULL) c
                ) t
                WHERE t.users > t.n * t.p
                $query$)
                INTO found USING left_out, k, coalesce(period, '7 days'), step;
        WHEN 'popular' THEN
            IF period IS NOT NULL OR half_life IS NOT NULL THEN
                EXECUTE format(listed_sql, $query$
                    SELECT
                        c.item_id,
                        CASE WHEN $6 IS NULL THEN c.users ELSE c.views END / $3::double precision AS score,
                        CASE WHEN $6 IS NULL THEN c.views ELSE c.users END AS tie
                    FROM {schema}._counted_since(NULL, $5, $6) c
                    $query$)
                    INTO found USING left_out, k, live.users, step, period, half_life;
            END IF;
            IF cardinality(found) < k THEN
                EXECUTE format($query$
                    SELECT ARRAY(
                        SELECT ROW(v.item_id, v.users / $1, $4)::{schema}.recommendation
                        FROM {schema}.%I v
                        WHERE v.item_id <> ALL ($2){eligible}
                        ORDER BY v.users DESC, v.views DESC, v.item_id{item_collate}
                        LIMIT $3)
                    $query$, '_items_' || live.generation)
                    INTO more
                    USING CASE WHEN period IS NULL AND half_life IS NULL THEN live.users ELSE 'Infinity'::double precision END,
                        left_out || ARRAY(SELECT f.item_id FROM unnest(found) f), k - cardinality(found), step;
                found := found || more;
            END IF;
    END CASE;
    RETURN found;
END
$function$;
COMMENT ON FUNCTION {schema}._fallback_items({schema}._generation, text, {user_parameter}, bigint, {item_type}[]) IS
    'The k first items of one step of the fallback, without those left out. Used by recommend().';
