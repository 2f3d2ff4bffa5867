-- Refreshes of the live generation: when they are due, and who asks for them.

ALTER TABLE recstore_private.recommenders ADD COLUMN refresh_at timestamptz NOT NULL DEFAULT now();
COMMENT ON COLUMN recstore_private.recommenders.refresh_at IS 'The times to refresh at, up to here, are dealt with.';

-- With its owner's rights, as the other ones: whoever may call it needs none on the tables.
CREATE FUNCTION recstore.request_refresh(recommender text) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$ SELECT recstore_private.request(recommender, 'refresh', 'sql') $$;
COMMENT ON FUNCTION recstore.request_refresh(text) IS
    'Asks the workers to store changed users and new items in a recommender''s live generation; returns the request''s number in recstore.requests. Takes effect at commit.';

REVOKE EXECUTE ON FUNCTION recstore.request_refresh(text) FROM PUBLIC;
