DO $$
DECLARE
    names text;
BEGIN
    SELECT string_agg(r.name, ', ' ORDER BY r.name) INTO names FROM recstore_private.recommenders r;
    IF names IS NOT NULL THEN
        RAISE EXCEPTION 'there are recommenders: %. Drop them first with `recstore drop`.', names
            USING ERRCODE = 'object_in_use';
    END IF;
END
$$;

DROP VIEW recstore.status, recstore.runs, recstore.generations, recstore.recommenders;
DROP SCHEMA recstore;
DROP TABLE recstore_private.flips, recstore_private.pointers, recstore_private.generations, recstore_private.runs,
    recstore_private.recommenders;
