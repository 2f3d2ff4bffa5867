-- Definitions have new settings, each with a default; those of earlier versions stay as they are stored.

COMMENT ON COLUMN recstore_private.generations.max_item_length IS
    'M, the greatest length of an item as the lists rank it: item preference vectors are w_i y_i / M.';
