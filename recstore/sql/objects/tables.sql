-- The parents of every generation's tables, made once at creation and anew by a resize.
-- STORAGE PLAIN before any partition exists: vectors stay in the row, out of TOAST (docs/decisions). A row above 2 kB would
-- have its text id moved out instead, and an exact scan would fetch every id from there: MAIN keeps those too.

-- object: table _items
CREATE TABLE {schema}._items (
    generation bigint NOT NULL,
    item_id {item_type} NOT NULL,
    embedding {vector}({dimensions}),
    preference {vector}({dimensions}),
    length double precision NOT NULL,
    users integer NOT NULL,
    views double precision NOT NULL
) PARTITION BY LIST (generation);
ALTER TABLE {schema}._items
    ALTER COLUMN item_id SET STORAGE {item_storage},
    ALTER COLUMN embedding SET STORAGE PLAIN,
    ALTER COLUMN preference SET STORAGE PLAIN,
    DISABLE ROW LEVEL SECURITY;  -- which a host's event trigger may have enabled
COMMENT ON TABLE {schema}._items IS 'Parent of the generations'' items. Read item_vectors, which shows the live one.';

-- object: table _users
CREATE TABLE {schema}._users (
    generation bigint NOT NULL,
    user_id {user_type} NOT NULL,
    preference {vector}({dimensions}),
    length double precision NOT NULL
) PARTITION BY LIST (generation);
ALTER TABLE {schema}._users
    ALTER COLUMN user_id SET STORAGE {user_storage},
    ALTER COLUMN preference SET STORAGE PLAIN,
    DISABLE ROW LEVEL SECURITY;
COMMENT ON TABLE {schema}._users IS 'Parent of the generations'' users. Read user_vectors, which shows the live one.';
