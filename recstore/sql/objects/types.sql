-- What the functions return. Composite types, because PL/pgSQL refuses a parameter and a result column of one name.

-- object: type recommendation
CREATE TYPE {schema}.recommendation AS (item_id {item_type}, score double precision, reason text);
COMMENT ON TYPE {schema}.recommendation IS
    'An item with its {predicted}; reason is trained, fold_in for a user who came after the training, or else the step that gave it: popular (score: share of users), trending or query.';

-- object: type similar_item
CREATE TYPE {schema}.similar_item AS (item_id {item_type}, score double precision);
COMMENT ON TYPE {schema}.similar_item IS 'An item with its cosine similarity, at most 1.';

-- object: type similar_user
CREATE TYPE {schema}.similar_user AS (user_id {user_type}, score double precision);
COMMENT ON TYPE {schema}.similar_user IS 'A user with the cosine similarity of tastes, at most 1.';

-- object: type audience_member
CREATE TYPE {schema}.audience_member AS (user_id {user_type}, score double precision, preference double precision);
COMMENT ON TYPE {schema}.audience_member IS
    'A user, ranked by score (the unit user vector''s inner product), and the {predicted}.';

-- object: type explanation
CREATE TYPE {schema}.explanation AS (item_id {item_type}, value double precision, contribution double precision);
COMMENT ON TYPE {schema}.explanation IS
    'An item that the user has interacted with, the value of that, and its part of the {predicted} for another item.';

-- object: type popular_item
CREATE TYPE {schema}.popular_item AS (item_id {item_type}, users integer, views double precision);
COMMENT ON TYPE {schema}.popular_item IS 'An item with its distinct users and total views.';

-- object: type comparison
CREATE TYPE {schema}.comparison AS (
    users bigint, overlap double precision, overlap_p10 double precision, overlap_p50 double precision,
    overlap_p90 double precision, first_changed bigint
);
COMMENT ON TYPE {schema}.comparison IS
    'Two generations: users compared, the mean and quantiles of the share of common items in their lists, and users whose first item differs.';

-- object: type compared_item
CREATE TYPE {schema}.compared_item AS (item_id {item_type}, lists_a bigint, lists_b bigint);
COMMENT ON TYPE {schema}.compared_item IS 'An item, and in how many lists of each of two generations it is.';

-- object: type _two_lists
CREATE TYPE {schema}._two_lists AS (user_id {user_type}, a {item_type}[], b {item_type}[]);
COMMENT ON TYPE {schema}._two_lists IS 'The lists of a user in two generations. Used by the public functions.';

-- object: type ranked_item
-- The parameter's type, so that an id beyond the column's type is returned, too.
CREATE TYPE {schema}.ranked_item AS (item_id {item_parameter}, score double precision, reason text);
COMMENT ON TYPE {schema}.ranked_item IS
    'A given item with its {predicted} and the reason, as of a recommendation; both NULL for an unknown item.';

-- object: type _near_item
CREATE TYPE {schema}._near_item AS (id {item_type}, distance double precision);
COMMENT ON TYPE {schema}._near_item IS 'An item at a distance. Used by the public functions.';

-- object: type _near_user
CREATE TYPE {schema}._near_user AS (id {user_type}, distance double precision);
COMMENT ON TYPE {schema}._near_user IS 'A user at a distance. Used by the public functions.';

-- object: type _pairs
CREATE TYPE {schema}._pairs AS (item_ids {item_type}[], "values" double precision[]);
COMMENT ON TYPE {schema}._pairs IS 'Items, each once, with the value of each. Used by the public functions.';

-- object: type _known_item
CREATE TYPE {schema}._known_item AS (
    item_id {item_type},
    value double precision,
    weight double precision,
    target double precision,
    whitened {extension}.vector,
    summand {extension}.vector
);
COMMENT ON TYPE {schema}._known_item IS
    'An item of a user with the value, its weight and target in the equation of a fold-in, and its vectors for that. Used by the public functions.';

-- object: type _query_vector
CREATE TYPE {schema}._query_vector AS (preference {vector}, length double precision, reason text);
COMMENT ON TYPE {schema}._query_vector IS
    'A user''s unit vector, the length of the factors, and where they come from. Used by the public functions.';
