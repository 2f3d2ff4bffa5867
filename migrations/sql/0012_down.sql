-- Version 0011 knows neither these settings of a training, nor weights of items, nor a column of pictures.

DO $$
DECLARE
    setting text[];
BEGIN
    IF EXISTS (
        SELECT FROM recstore_private.generations g
        WHERE (g.training ? 'item_weights' OR g.confidence ->> 'function' = 'power')
            AND g.state IN ('ready', 'withheld', 'published')
    ) THEN
        RAISE EXCEPTION 'the earlier version cannot read generations with a popularity exponent or the confidence function power'
            USING HINT = 'Train without them (recstore alter NAME --popularity-exponent 0 --confidence bm25), and prune the older ones.';
    END IF;
    FOREACH setting SLICE 1 IN ARRAY ARRAY[
        ['hyperparameters', 'user_exponent'],
        ['hyperparameters', 'view_exponent'],
        ['hyperparameters', 'ridge'],
        ['hyperparameters', 'popularity_exponent'],
        ['confidence', 'activity_exponent'],
        ['confidence', 'rarity_exponent'],
        ['titles', 'picture']
    ] LOOP
        UPDATE recstore_private.recommenders SET definition = definition #- setting;
        UPDATE recstore_private.generations SET definition = definition #- setting;
        UPDATE recstore_private.studies SET definition = definition #- setting;
        UPDATE recstore_private.runs SET refused = refused #- (ARRAY['definition'] || setting) WHERE refused IS NOT NULL;
    END LOOP;
    -- unset is bm25 there
    setting := ARRAY['confidence', 'function'];
    UPDATE recstore_private.recommenders SET definition = definition #- setting WHERE definition #> setting = 'null';
    UPDATE recstore_private.generations SET definition = definition #- setting WHERE definition #> setting = 'null';
    UPDATE recstore_private.studies SET definition = definition #- setting WHERE definition #> setting = 'null';
    UPDATE recstore_private.runs SET refused = refused #- (ARRAY['definition'] || setting)
        WHERE refused #> (ARRAY['definition'] || setting) = 'null';
END
$$;

COMMENT ON COLUMN recstore_private.generations.max_item_length IS 'M = max |y_i|: item preference vectors are y_i / M.';
