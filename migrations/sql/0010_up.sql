-- A request for lists that no run could serve is refused at once. NULL for force means the default.

CREATE OR REPLACE FUNCTION recstore_private.request(recommender text, job text, origin text, task_id text DEFAULT NULL, force boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM recstore_private.recommenders r WHERE r.name = request.recommender) THEN
        RAISE EXCEPTION 'there is no recommender named "%"', request.recommender
            USING ERRCODE = 'undefined_object', HINT = 'SELECT name FROM recstore.recommenders lists those there are.';
    END IF;
    IF request.job = 'lists' AND NOT EXISTS (
        SELECT
        FROM recstore_private.recommenders r
        WHERE r.name = request.recommender
            AND coalesce(r.definition -> 'lists' ->> 'recommend_into', r.definition -> 'lists' ->> 'similar_into') IS NOT NULL
    ) THEN
        RAISE EXCEPTION 'the definition of "%" names no table for lists', request.recommender
            USING ERRCODE = 'invalid_parameter_value',
                HINT = format('recstore alter %s --recommend-into schema.table', request.recommender);
    END IF;
    INSERT INTO recstore_private.requests (recommender, job, origin, task_id, force)
    VALUES (request.recommender, request.job, request.origin, request.task_id, coalesce(request.force, false))
    RETURNING requests.request INTO number;
    PERFORM pg_notify('recstore_requests', request.recommender);
    RETURN number;
END
$$;
