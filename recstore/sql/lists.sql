-- Tables of lists: whether one may be written or replaced, and what would go with it.

-- name: list_table
-- What stands at that name, and whether this role may put a table there. No row: there is no such schema.
SELECT
    n.nspname AS schema,
    has_schema_privilege(n.oid, 'CREATE') AS may_create,
    c.oid,
    c.relkind::text AS kind,
    c.relispartition AS partition,
    obj_description(c.oid, 'pg_class') AS comment,
    pg_get_userbyid(c.relowner) AS owner,
    pg_get_userbyid(c.relowner) = current_user AS owned,
    c.relrowsecurity OR c.relforcerowsecurity AS row_security
FROM pg_namespace n
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = %(table)s
WHERE n.nspname = %(schema)s;

-- name: list_table_publications
-- Those that carry every table of the schema, a new one, too, which subscribers lack.
SELECT p.pubname AS publication
FROM pg_publication p
WHERE p.puballtables
    OR EXISTS (
        SELECT FROM pg_publication_namespace pn JOIN pg_namespace n ON n.oid = pn.pnnspid
        WHERE pn.pnpubid = p.oid AND n.nspname = %(schema)s
    )
ORDER BY 1;

-- name: list_table_dependents
-- What a new table would not have and dropping the old one would take along, or be refused for: views, functions, foreign keys
-- of other tables, policies, triggers, publications, .. but no index and no constraint that a new one has, too.
SELECT DISTINCT
    CASE
        WHEN d.classid = 'pg_rewrite'::regclass
        THEN (SELECT pg_describe_object('pg_class'::regclass, w.ev_class, 0) FROM pg_rewrite w WHERE w.oid = d.objid)
        ELSE pg_describe_object(d.classid, d.objid, 0)
    END AS object
FROM pg_class t
JOIN pg_type y ON y.oid = t.reltype
JOIN pg_depend d
    ON (d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid)
    OR (d.refclassid = 'pg_type'::regclass AND d.refobjid IN (y.oid, y.typarray))
LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
WHERE t.oid = %(oid)s AND d.deptype IN ('n', 'a')
    AND NOT (
        d.classid = 'pg_class'::regclass
        AND (d.objid = t.oid OR EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = d.objid AND i.indrelid = t.oid))
    )
    AND NOT (k.conrelid IS NOT DISTINCT FROM t.oid AND k.contype IN ('p', 'n'))
ORDER BY 1;

-- name: list_table_indexes
-- Those beside the primary key, which a new table gets, too.
SELECT c.oid, c.relname AS name, i.indisunique AS is_unique, pg_get_indexdef(i.indexrelid) AS definition
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = %(oid)s AND NOT i.indisprimary AND i.indisvalid
ORDER BY c.relname;

-- name: list_table_column_grants
-- Rights on columns alone, which are apart from the table's.
SELECT
    CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee,
    a.privilege_type || ' (' || quote_ident(c.attname) || ')' AS privilege_type,
    a.is_grantable
FROM pg_attribute c
CROSS JOIN LATERAL aclexplode(c.attacl) a
WHERE c.attrelid = %(oid)s AND c.attnum > 0 AND NOT c.attisdropped;
