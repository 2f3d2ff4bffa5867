-- The one vector search behind every function, once for items and once for users.
-- ef NULL: exact scan. Otherwise the HNSW index at that ef_search; where it returns fewer than k rows (filtered away, or
-- a scan that stopped early) the exact scan answers. Callers order by distance, then id.
-- Candidates are looked up one by one as the index gives rows, and joined where every row is compared. The k best of them
-- lie the deeper in the index the fewer there are, so ef_search is not enough as it was calibrated: as many eligible rows are
-- wanted as it finds among all, unless most of the first are eligible. Where there are fewer, their share says how much wider a second scan has to be, or that the
-- exact one, which compares eligible rows only, is faster (docs/decisions/0022).
-- Its callers assign the result to a variable: written into unnest(..), the planner would call it too, to guess the rows.

-- object: function _nearest_{side}
CREATE OR REPLACE FUNCTION {schema}._nearest_{side}(
    generation bigint,
    column_name text,
    query {vector},
    k bigint,
    excluded {id_type}[],
    min_users bigint,
    ef integer,
    every boolean DEFAULT false
)
RETURNS {schema}._near_{one}[]
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 10000
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    -- For <#> the distance is the negative inner product.
    distance_sql CONSTANT text := format(
        CASE column_name
            WHEN 'embedding' THEN 'v.%I OPERATOR({extension}.<=>) $1'
            ELSE 'v.%I OPERATOR({extension}.<#>) $1'
        END,
        column_name);
    rows_sql text := format(' FROM {schema}.%I v WHERE v.%I IS NOT NULL', '_{side}_' || generation, column_name);
    nearest {schema}._near_{one}[];
    among_candidates CONSTANT boolean := {among_candidates} AND NOT every;
    looked_up CONSTANT text := CASE WHEN among_candidates THEN '{looked_up}' ELSE '' END;
    joined CONSTANT text := CASE WHEN among_candidates THEN '{joined}' ELSE '' END;
    wanted bigint := greatest(ef, least(2 * k, 1000));
    beam bigint := wanted;
    first CONSTANT bigint := k + (k + 1) / 2;
    widened boolean := false;
    enough boolean := false;
    loaded {extension}.vector;
    saved text[];
    changed text[];
BEGIN
    IF cardinality(excluded) > 0 THEN
        rows_sql := rows_sql || ' AND v.{id} <> ALL ($3)';
    END IF;
    IF min_users > 1 THEN
        rows_sql := rows_sql || ' AND v.users >= $4';
    END IF;

    IF ef IS NOT NULL THEN
        -- Assignments, not PERFORM: they need no executor.
        loaded := '[1]';  -- the library, before which its settings do not exist
        saved := ARRAY[
            current_setting('hnsw.ef_search'),
            current_setting('hnsw.iterative_scan'),
            current_setting('hnsw.max_scan_tuples'),
            current_setting('enable_sort')
        ];
        IF among_candidates THEN
            wanted := greatest(k, least(wanted, 800));
            beam := least(1000, 1.25 * wanted);
        ELSE
            wanted := k;
        END IF;
        changed := ARRAY[
            set_config('hnsw.iterative_scan', CASE WHEN among_candidates THEN 'off' ELSE 'relaxed_order' END, true),
            set_config('hnsw.max_scan_tuples', '20000', true),
            set_config('enable_sort', 'off', true)  -- the index is the only path that needs no sort
        ];
        IF among_candidates AND first <= ef THEN
            -- Where most rows are eligible, enough are among the first that the calibrated scan finds.
            changed := ARRAY[set_config('hnsw.ef_search', ef::text, true)];
            EXECUTE 'SELECT ARRAY(SELECT ROW(v.{id}, v.distance)::{schema}._near_{one} FROM ('
                'SELECT v.{id}, ' || distance_sql || ' AS distance' || rows_sql
                || ' ORDER BY ' || distance_sql || ' LIMIT $2) v WHERE true' || looked_up || ')'
                INTO nearest USING query, first, excluded, min_users;
            enough := cardinality(nearest) >= k;
        END IF;
        LOOP
            EXIT WHEN enough;
            changed := ARRAY[set_config('hnsw.ef_search', beam::text, true)];
            -- A single SELECT, the quickest to plan. Callers sort, in statements whose plans are kept.
            EXECUTE 'SELECT ARRAY(SELECT ROW(v.{id}, ' || distance_sql || ')::{schema}._near_{one}' || rows_sql || looked_up
                || ' ORDER BY ' || distance_sql || ' LIMIT $2)'
                INTO nearest USING query, wanted, excluded, min_users;
            enough := cardinality(nearest) = wanted;
            EXIT WHEN enough OR widened OR NOT among_candidates;
            -- half as wide again as this share asks for; beyond ten times what is wanted the index is less reliable than it
            -- was calibrated, and from a row in 30 on comparing all is faster
            widened := true;
            beam := 1.5 * beam * wanted / nullif(cardinality(nearest), 0);
            EXIT WHEN beam IS NULL OR beam > (
                SELECT least(1000, 10 * wanted, c.reltuples / 30) FROM pg_class c
                WHERE c.oid = to_regclass(format('{schema}.%I', '_{side}_' || generation))
            );
        END LOOP;
        changed := ARRAY[
            set_config('hnsw.ef_search', saved[1], true),
            set_config('hnsw.iterative_scan', saved[2], true),
            set_config('hnsw.max_scan_tuples', saved[3], true),
            set_config('enable_sort', saved[4], true)
        ];
        IF enough THEN
            IF cardinality(nearest) > k THEN
                nearest := ARRAY(SELECT n FROM unnest(nearest) n ORDER BY n.distance, n.id{collate} LIMIT k);
            END IF;
            RETURN nearest;
        END IF;
    END IF;

    -- "- 0" matches no index: every row is compared. Sorted by the column that is returned, it is computed once.
    EXECUTE 'SELECT ARRAY(SELECT ROW(n.id, n.distance)::{schema}._near_{one} FROM ('
        'SELECT v.{id} AS id, (' || distance_sql || ') - 0 AS distance' || rows_sql || joined
        || ' ORDER BY distance, v.{id}{collate} LIMIT $2) n)'
        INTO nearest USING query, k, excluded, min_users;
    RETURN nearest;
END
$function$;
COMMENT ON FUNCTION {schema}._nearest_{side}(bigint, text, {vector}, bigint, {id_type}[], bigint, integer, boolean) IS
    'The k {side} of a generation nearest to a query vector, by exact scan or HNSW; every: candidates or not. Used by the public functions.';
