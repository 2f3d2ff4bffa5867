-- Fold-in: the factors of one user against the live items, from current rows, in the caller's snapshot (docs/decisions/0030).
-- The vectors are in a table of the generation, in coordinates in which Y^T Y + regularization I is the identity.

-- object: function _solve
CREATE OR REPLACE FUNCTION {schema}._solve(
    z {extension}.vector[],
    a double precision[],
    b {extension}.vector
)
RETURNS {extension}.vector
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 10000
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    size CONSTANT integer[] := ARRAY[{extension}.vector_dims(b)];
    solution {extension}.vector := array_fill(0::real, size)::{extension}.vector;
    residual {extension}.vector := b;
    direction {extension}.vector := b;
    image {extension}.vector;
    step double precision;
    squared double precision := -(b OPERATOR({extension}.<#>) b);
    enough CONSTANT double precision := 1e-12 * squared;
    before double precision;
BEGIN
    -- pgvector multiplies by elements: a number becomes a vector of equal elements.
    -- In exact arithmetic there are at most as many steps as items. Rounding ends progress near the bound.
    BEGIN
        FOR _ IN 1..2 * cardinality(a) LOOP
            EXIT WHEN squared <= enough;
            SELECT {extension}.sum(e.z OPERATOR({extension}.*) array_fill(
                (-e.a * (e.z OPERATOR({extension}.<#>) direction))::real, size)::{extension}.vector)
            INTO image FROM unnest(z, a) e (z, a);
            image := image OPERATOR({extension}.+) direction;
            step := -squared / (direction OPERATOR({extension}.<#>) image);
            solution := solution OPERATOR({extension}.+)
                (array_fill(step::real, size)::{extension}.vector OPERATOR({extension}.*) direction);
            residual := residual OPERATOR({extension}.-)
                (array_fill(step::real, size)::{extension}.vector OPERATOR({extension}.*) image);
            before := squared;
            squared := -(residual OPERATOR({extension}.<#>) residual);
            direction := residual OPERATOR({extension}.+)
                (array_fill((squared / before)::real, size)::{extension}.vector OPERATOR({extension}.*) direction);
        END LOOP;
    EXCEPTION WHEN numeric_value_out_of_range THEN
        NULL;  -- an element is too small for single precision, and so is what is left to do
    END;
    RETURN solution;
END
$function$;
COMMENT ON FUNCTION {schema}._solve({extension}.vector[], double precision[], {extension}.vector) IS
    'The solution t of (I + sum a z z^T) t = b, by conjugate gradients. Used by the public functions.';

-- object: function _weighted
CREATE OR REPLACE FUNCTION {schema}._weighted(live {schema}._generation, pairs {schema}._pairs)
RETURNS SETOF {schema}._known_item
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 1000
ROWS 50
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    weighting CONSTANT jsonb := (SELECT w.weighting FROM {schema}._weighting w WHERE w.generation = live.generation);
BEGIN
    IF weighting IS NULL OR pairs.item_ids IS NULL THEN
        RETURN;
    END IF;
    IF {rated} THEN  -- recstore/model/trainers/ratings.py
        RETURN QUERY EXECUTE format($query$
            SELECT k.item_id, k.value, k.a, k.a * ((k.value - r.mean) / r.scale_factor - k.bias), k.whitened, k.summand
            FROM (
                SELECT p.*, (count(*) OVER ())::double precision ^ -0.5 AS a, f.bias, f.whitened, f.summand
                FROM unnest($1, $2) p (item_id, value) JOIN {schema}.%I f ON f.item_id = p.item_id
                WHERE f.whitened IS NOT NULL
            ) k
            CROSS JOIN jsonb_to_record($3) r (mean float8, scale_factor float8)
            $query$, '_fold_in_' || live.generation)
            USING pairs.item_ids, pairs."values", weighting;
        RETURN;
    END IF;
    -- The confidences of recstore/model/confidence.py, which bounds weights in the same way. Items without vectors count for the
    -- user's total alone.
    RETURN QUERY EXECUTE format($query$
        SELECT k.item_id, k.signed, k.weight, CASE WHEN k.signed > 0 THEN 1 + k.weight END, k.whitened, k.summand
        FROM (
            SELECT
                p.item_id,
                p.signed,
                w.alpha * least(greatest(
                    CASE w.function
                        WHEN 'binary' THEN 1
                        WHEN 'linear' THEN p.value
                        WHEN 'log' THEN ln(1 + p.value / w.eps)
                        WHEN 'share' THEN p.value / sum(p.value) OVER ()
                        WHEN 'bm25' THEN f.idf * (w.k1 + 1)
                            / (1 + w.k1 * (1 - w.b + w.b * sum(p.value) OVER () / w.mean_total) / p.value)
                        WHEN 'power' THEN f.idf * (w.k1 + 1) / (1 + w.k1 / p.value)
                            * (count(*) OVER ())::double precision ^ -w.activity_exponent
                    END / w.scale_factor, 1e-30), 1e30) AS weight,
                f.whitened,
                f.summand
            FROM (
                SELECT u.item_id, u.value AS signed, least(greatest(abs(u.value), 1e-30), 1e30) AS value
                FROM unnest($1, $2) u (item_id, value)
            ) p
            JOIN {schema}.%I f ON f.item_id = p.item_id
            CROSS JOIN jsonb_to_record($3) w (
                function text, eps float8, k1 float8, b float8, scale_factor float8, mean_total float8, alpha float8,
                activity_exponent float8
            )
        ) k
        WHERE k.whitened IS NOT NULL OR k.summand IS NOT NULL
        $query$, '_fold_in_' || live.generation)
        USING pairs.item_ids, pairs."values", weighting;
END
$function$;
COMMENT ON FUNCTION {schema}._weighted({schema}._generation, {schema}._pairs) IS
    'The interactions with items that the live generation knows, with what it needs to fold them in. None if it cannot fold in. Used by the public functions.';

-- object: function _fold_in
CREATE OR REPLACE FUNCTION {schema}._fold_in(live {schema}._generation, pairs {schema}._pairs)
RETURNS {schema}._query_vector
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 10000
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    known record;
    factors {extension}.vector;
    length double precision;
BEGIN
    -- A value below 0 is a dislike: preference 0 with the confidence of the value without its sign. It has no target.
    SELECT
        array_agg(k.whitened) AS z,
        array_agg(k.weight) AS a,
        max(k.largest)::real AS scale,
        {extension}.sum(k.whitened OPERATOR({extension}.*) array_fill(
            (sign(k.target) * greatest(abs(k.target) / k.largest, 1e-15))::real,
            ARRAY[{extension}.vector_dims(k.whitened)])::{extension}.vector
        ) FILTER (WHERE k.target IS NOT NULL AND k.whitened IS NOT NULL) AS b,
        {extension}.sum(k.summand) FILTER (WHERE k.target IS NOT NULL) AS summed,
        {extension}.sum(k.summand) FILTER (WHERE k.target IS NULL) AS subtracted
    INTO known
    FROM (SELECT w.*, greatest(max(abs(w.target)) OVER (), 1e-30) AS largest FROM {schema}._weighted(live, pairs) w) k;

    IF known.b IS NULL AND known.summed IS NULL THEN  -- nothing that the model knows, or only dislikes
        RETURN NULL;
    END IF;
    IF known.b IS NOT NULL THEN
        EXECUTE format(
            'SELECT array_agg(-(v.basis OPERATOR({extension}.<#>) $1) ORDER BY v.factor)::{extension}.vector FROM {schema}.%I v',
            '_basis_' || live.generation)
            INTO factors USING {schema}._solve(known.z, known.a, known.b);
        factors := factors OPERATOR({extension}.*)
            array_fill(known.scale, ARRAY[{extension}.vector_dims(factors)])::{extension}.vector;
        IF {rated} THEN  -- what the item's bias is multiplied by
            factors := factors OPERATOR({extension}.||) '[1]'::{extension}.vector;
        END IF;
    END IF;
    IF known.subtracted IS NOT NULL THEN
        known.summed := known.summed OPERATOR({extension}.-) known.subtracted;
    END IF;
    IF known.summed IS NOT NULL THEN
        factors := CASE WHEN factors IS NULL THEN known.summed ELSE factors OPERATOR({extension}.||) known.summed END;
    END IF;

    length := sqrt(-(factors OPERATOR({extension}.<#>) factors));
    IF NOT length > 1e-12 THEN
        RETURN NULL;
    END IF;
    factors := {extension}.l2_normalize(factors);
    IF {extension}.vector_dims(factors) < {dimensions} THEN
        factors := factors OPERATOR({extension}.||)
            array_fill(0::real, ARRAY[{dimensions} - {extension}.vector_dims(factors)])::{extension}.vector;
    END IF;
    RETURN ROW(factors::{vector}, length, 'fold_in')::{schema}._query_vector;
END
$function$;
COMMENT ON FUNCTION {schema}._fold_in({schema}._generation, {schema}._pairs) IS
    'The vector of a user with these interactions, as a training with the same items would solve it. NULL without an item that the model knows. Used by the public functions.';

-- object: function _pairs_of
-- One value for each item, as the live generation's training combined the rows of a pair (recstore/model/interactions.py), at
-- its reference time (recstore/model/confidence.py).
CREATE OR REPLACE FUNCTION {schema}._pairs_of(user_id {user_parameter})
RETURNS {schema}._pairs
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 1000
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan  -- as _left_out
AS $function$
DECLARE
    -- the column's collation decides, not the argument's
    wanted {user_parameter}{user_default_collate} := user_id;
    weighting {schema}._weighting;
    half_life double precision;
    reference double precision;
    least_value double precision;
    pairs {schema}._pairs;
BEGIN
    SELECT * INTO weighting FROM {schema}._weighting;
    IF weighting.generation IS NULL THEN
        RETURN NULL;
    END IF;
    least_value := CASE WHEN {rated} OR weighting.negative <> 'drop' THEN '-Infinity' ELSE 0.0::double precision END;
    half_life := (weighting.weighting -> 'half_life')::double precision;
    reference := (weighting.weighting -> 'reference')::double precision / 1e6;
    SELECT
        array_agg(p.item_id),
        array_agg(least(p.value, weighting.max_value) * CASE
            WHEN half_life IS NULL THEN 1
            ELSE 2 ^ -least(greatest(coalesce(reference - extract(epoch FROM p.last_at), 'Infinity') / half_life, 0), 60)
        END)
    INTO pairs
    FROM (
        SELECT
            r.item_id,
            CASE weighting.duplicates
                WHEN 'sum' THEN sum(r.value)
                WHEN 'mean' THEN avg(r.value)
                WHEN 'max' THEN max(r.value)
                ELSE (array_agg(r.value ORDER BY nullif(r.last_at, '-infinity') DESC NULLS LAST, r.place DESC))[1]
            END AS value,
            sum(abs(r.value)) AS total,
            max(r.last_at)::timestamptz AS last_at
        FROM (
            -- the source's last_at if it has one, else the newest of all: a name is sought in the innermost query first
            SELECT i.item_id,
                {bounded_value} AS value,
                (SELECT last_at FROM (SELECT i.*) o) AS last_at,
                row_number() OVER () AS place  -- in the order of reading
            FROM {schema}.interactions i CROSS JOIN (SELECT timestamptz 'infinity' AS last_at) n
            WHERE i.user_id = wanted AND i.item_id IS NOT NULL
                AND {finite_value}
        ) r
        WHERE r.value > least_value
        GROUP BY r.item_id
    ) p
    WHERE {rated} OR CASE weighting.negative WHEN 'dislike' THEN abs(p.value) ELSE p.value END / 1e-12 > p.total;  -- what is left of returns may be a rounding error
    IF cardinality(pairs.item_ids) > weighting.max_items_per_user THEN  -- too many for a person
        RETURN NULL;
    END IF;
    RETURN pairs;
END
$function$;
COMMENT ON FUNCTION {schema}._pairs_of({user_parameter}) IS
    'The current interactions of a user, one value for each item. Used by the public functions.';

-- object: function _query_vector
CREATE OR REPLACE FUNCTION {schema}._query_vector(
    live {schema}._generation,
    user_id {user_parameter},
    fresh boolean DEFAULT NULL
)
RETURNS {schema}._query_vector
LANGUAGE plpgsql
STABLE
PARALLEL UNSAFE
COST 10000
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    found {schema}._query_vector;
    folded {schema}._query_vector;
    wanted CONSTANT boolean := coalesce(fresh, {fresh});
BEGIN
    EXECUTE format('SELECT v.preference, v.length, ''trained'' FROM {schema}.%I v WHERE v.user_id = $1', '_users_' || live.generation)
        INTO found USING _query_vector.user_id;
    IF wanted OR (found.preference IS NULL AND {folds_in}) THEN
        folded := {schema}._fold_in(live, {schema}._pairs_of(_query_vector.user_id));
        -- On unchanged rows both are the same, but for rounding.
        IF found.preference IS NULL OR abs(folded.length / found.length - 1) > {vector_rounding}
            OR (folded.preference OPERATOR({extension}.<->) found.preference) > {vector_rounding}
        THEN
            found := folded;
        END IF;
    END IF;
    RETURN found;
END
$function$;
COMMENT ON FUNCTION {schema}._query_vector({schema}._generation, {user_parameter}, boolean) IS
    'The vector of a user: as trained, or folded in if there is none and that is a step of the fallback, or if fresh and the current rows say otherwise. NULL for one without usable interactions. Used by the public functions.';
