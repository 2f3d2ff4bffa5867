-- object: view _generation
-- The live generation, or the complete one of this recommender that the setting recstore.generation names (a canary).
-- Read with the owner's rights: it shows readers this one row of recstore's private tables, and by security_barrier no
-- other row to a function in a reader's WHERE.
CREATE OR REPLACE VIEW {schema}._generation WITH (security_barrier = true) AS
SELECT
    g.generation,
    g.users,
    g.max_item_length,
    g.mean_preference,
    g.seen_published,
    g.recommend_ef,
    g.similar_ef,
    g.users_ef
FROM recstore_private.generations g
WHERE g.generation = coalesce(
    (
        SELECT c.generation
        FROM recstore_private.generations c
        WHERE c.generation = CASE
                WHEN current_setting('recstore.generation', true) ~ '^[0-9]{1,18}$'
                    THEN current_setting('recstore.generation', true)::bigint
            END
            AND c.recommender_id = {recommender_id}
            AND c.state IN ('ready', 'withheld', 'published')
    ),
    (
        SELECT p.generation
        FROM recstore_private.pointers p
        WHERE p.recommender_id = {recommender_id}
    )
);
COMMENT ON VIEW {schema}._generation IS
    'The live generation and its calibrated search settings (or the generation that the setting recstore.generation names).';

-- object: view _weighting
-- As _generation with the owner's rights, and apart from it: what only a fold-in reads.
CREATE OR REPLACE VIEW {schema}._weighting WITH (security_barrier = true) AS
SELECT
    g.generation,
    g.confidence || jsonb_build_object('alpha', g.training -> 'alpha') AS weighting,
    (g.training ->> 'solved_weight')::double precision AS solved_weight,
    g.definition -> 'source' ->> 'duplicates' AS duplicates,
    g.definition -> 'source' ->> 'negative' AS negative,
    (g.definition -> 'filters' ->> 'max_value')::double precision AS max_value,
    (g.definition -> 'filters' ->> 'max_items_per_user')::double precision AS max_items_per_user
FROM recstore_private.generations g
WHERE g.generation = (SELECT l.generation FROM {schema}._generation l) AND (g.training ->> 'solved_weight') IS NOT NULL;
COMMENT ON VIEW {schema}._weighting IS
    'How the live generation combines and weights interactions, if it has what SQL needs to fold in users (tables _fold_in_N and _basis_N).';

-- object: view item_vectors
CREATE OR REPLACE VIEW {schema}.item_vectors AS
{item_select};
COMMENT ON VIEW {schema}.item_vectors IS
    'Items of the live generation. ORDER BY embedding <=> another item''s embedding: similar items. ORDER BY preference <#> user_vector(user): recommendations.';
COMMENT ON COLUMN {schema}.item_vectors.embedding IS 'Unit vector, for <=> (cosine): similar items. NULL for an item whose factors collapsed.';
COMMENT ON COLUMN {schema}.item_vectors.preference IS 'Length at most 1, for <#> (inner product) with a user''s preference: recommendations.';
COMMENT ON COLUMN {schema}.item_vectors.length IS 'Length of the item''s factors as trained.';
COMMENT ON COLUMN {schema}.item_vectors.users IS 'Popularity: distinct users who viewed it, in the training snapshot.';
COMMENT ON COLUMN {schema}.item_vectors.views IS 'Total views in the training snapshot.';

-- object: view user_vectors
CREATE OR REPLACE VIEW {schema}.user_vectors AS
{user_select};
COMMENT ON VIEW {schema}.user_vectors IS 'Users of the live generation. Shows people: granted apart.';
COMMENT ON COLUMN {schema}.user_vectors.preference IS 'Unit vector: <#> with items'' preference, <=> with other users''.';
COMMENT ON COLUMN {schema}.user_vectors.length IS 'Length of the user''s factors as trained.';

-- object: view candidates
-- Without candidates every item of the live generation; the functions then read none of this. Always there, so that a query
-- of one's own may join it, and never dropped under a function that still reads it. The caller's rights decide.
CREATE OR REPLACE VIEW {schema}.candidates WITH (security_invoker = true) AS
{candidates_select};
COMMENT ON VIEW {schema}.candidates IS
    'The items that may be recommended now, live, with the rights of whoever asks. Every function that returns items keeps to them.';

-- object: view exclusions
-- Without exclusions no rows; recommend() then reads none of this.
CREATE OR REPLACE VIEW {schema}.exclusions WITH (security_invoker = true) AS
{exclusions_select};
COMMENT ON VIEW {schema}.exclusions IS
    'What recommend() leaves out for each user, live, with the rights of whoever asks. Shows people: granted apart.';

-- object: view interactions
-- The caller's own rights on the source decide what is seen (security_invoker).
CREATE OR REPLACE VIEW {schema}.interactions WITH (security_invoker = true) AS
{source_select};
COMMENT ON VIEW {schema}.interactions IS 'The source, live, with the rights of whoever asks. Shows people: granted apart.';

-- object: view _fallback
-- Always there, and never dropped under a function that reads it. The caller's rights decide.
CREATE OR REPLACE VIEW {schema}._fallback WITH (security_invoker = true) AS
{fallback_select};
COMMENT ON VIEW {schema}._fallback IS
    'The SELECT of the step query: items with a score for one user, or for all where user_id is NULL. Used by recommend().';
