-- Erasure: a person is removed from every generation that anyone can read, in the caller's transaction.
-- A generation that is not complete yet is left alone: its index build holds a lock that a DELETE would wait for. When it is
-- completed, the users erased since its source was read are removed from it (recstore/publication/erasing.py).

-- object: function forget_user
-- With the owner's rights, so that whoever may erase people needs no right on the tables. Granted apart.
CREATE OR REPLACE FUNCTION {schema}.forget_user(user_id {user_parameter})
RETURNS bigint
LANGUAGE plpgsql
VOLATILE
PARALLEL UNSAFE
SECURITY DEFINER
COST 10000
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    -- the column's collation decides, not the argument's
    wanted CONSTANT {user_parameter}{user_default_collate} := user_id;
    place record;
    rows_there bigint;
    removed bigint := 0;
    of_generations bigint[] := '{}';
    still_there boolean := false;
BEGIN
    IF wanted IS NULL OR octet_length(wanted::text) > {longest_id} THEN  -- longer than any id of a generation
        RETURN 0;
    END IF;

    -- Either this sees the generation that is being completed, or that sees this.
    PERFORM FROM recstore_private.completions c WHERE c.recommender_id = {recommender_id} FOR SHARE;

    FOR place IN
        SELECT to_regclass(format('{schema}.%I', t.name || g.generation)) AS relation, g.generation, false AS calls_others
        FROM recstore_private.generations g
        CROSS JOIN unnest(ARRAY['_users_', '_seen_', '_refreshed_']) t (name)
        WHERE g.recommender_id = {recommender_id} AND g.state NOT IN ('attached', 'building', 'pruning', 'pruned')
        UNION ALL
        SELECT c.oid, NULL, c.relhasrules OR EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)
        FROM pg_class c
        WHERE c.relowner = quote_ident(current_user)::regrole AND c.relkind = 'r'
            AND starts_with(obj_description(c.oid, 'pg_class'), '{lists_mark}')
    LOOP
        CONTINUE WHEN place.relation IS NULL;
        IF place.calls_others THEN  -- others' functions would run with the owner's rights
            RAISE WARNING 'The rows of this user in % stay: the table has triggers or rules', place.relation::regclass
                USING HINT = 'Write the lists again, or delete the rows there.';
            CONTINUE;
        END IF;
        EXECUTE format('DELETE FROM %s t WHERE t.user_id = $1', place.relation::regclass) USING wanted;
        GET DIAGNOSTICS rows_there = ROW_COUNT;
        removed := removed + rows_there;
        IF rows_there > 0 AND place.generation <> ALL (of_generations) THEN
            of_generations := of_generations || place.generation;
        END IF;
    END LOOP;

    FOR place IN  -- by its mark a table is known as recstore's
        SELECT c.oid::regclass AS relation
        FROM recstore_private.recommenders r
        CROSS JOIN parse_ident(r.definition -> 'lists' ->> 'recommend_into', false) AS named
        JOIN pg_namespace n ON n.nspname = named[1]
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = named[2]
        WHERE r.id = {recommender_id} AND NOT coalesce(starts_with(obj_description(c.oid, 'pg_class'), '{lists_mark}'), false)
    LOOP
        RAISE WARNING 'The rows of this user in % stay: its comment no longer says that recstore wrote it', place.relation
            USING HINT = 'Drop the table and write the lists again, or delete the rows there.';
    END LOOP;

    INSERT INTO recstore_private.erasures AS e (recommender_id, user_id, xid, erased_at, erased_by, generations)
    VALUES ({recommender_id}, wanted::text, pg_current_xact_id(), clock_timestamp(), session_user, of_generations)
    ON CONFLICT ON CONSTRAINT pk_erasures DO UPDATE
    SET xid = excluded.xid,
        erased_at = excluded.erased_at,
        erased_by = excluded.erased_by,
        generations = e.generations || excluded.generations;

    -- With published seen items nobody needs to read the source, which may be slow to look up.
    IF (SELECT g.seen_published FROM {schema}._generation g) IS NOT TRUE THEN
        BEGIN  -- functions of the application's have the owner's rights here: the subtransaction is READ ONLY, until it fails
            PERFORM set_config('transaction_read_only', 'on', true);
            still_there := EXISTS (SELECT FROM {schema}.interactions i WHERE i.user_id = wanted);
            RAISE EXCEPTION USING ERRCODE = 'RS000';
        EXCEPTION
            WHEN SQLSTATE 'RS000' THEN NULL;
            WHEN OTHERS THEN  -- the application's own error must not keep a person in
                RAISE WARNING 'The source of {schema_name} could not be asked whether it still has rows of this user: %', SQLERRM;
        END;
    END IF;
    IF still_there THEN
        RAISE WARNING 'The source of {schema_name} still has rows of this user: recommend() answers from them, and a refresh or training stores them'
            USING HINT = 'Delete those rows first, in the same transaction.';
    END IF;
    RETURN removed;
END
$function$;
REVOKE EXECUTE ON FUNCTION {schema}.forget_user({user_parameter}) FROM PUBLIC;
COMMENT ON FUNCTION {schema}.forget_user({user_parameter}) IS
    'Removes a user from every kept generation and from the lists of recommend-all, and keeps a training that has read the source already, or a file, from bringing the user back. Returns the number of rows removed, 0 for an unknown user. Part of the caller''s transaction. Warns if the source still has rows of the user. Needs a grant of its own.';
