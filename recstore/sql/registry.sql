-- Recommenders and the objects of their schemas.

-- name: vector_extension
-- The schema and version of pgvector.
SELECT n.nspname AS schema, e.extversion AS version
FROM pg_extension e
JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'vector';

-- name: revision_table
SELECT WHERE to_regclass('recstore_private.alembic_version') IS NOT NULL;

-- name: select_revision
SELECT v.version_num FROM recstore_private.alembic_version v;

-- name: name_checks
-- Reasons against a name: a reserved word, an existing schema, a role whose "$user" on the search_path it would be.
SELECT
    EXISTS (SELECT FROM pg_get_keywords() k WHERE k.word = %(name)s AND k.catcode IN ('R', 'T')) AS reserved,
    EXISTS (SELECT FROM pg_roles r WHERE r.rolname = %(name)s) AS role_exists,
    EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = %(name)s) AS schema_exists;

-- name: reserved_schema
-- A row if the schema is reserved: the server's, recstore's, or a recommender's, which is recognized by its
-- items, because not every role may read the registry.
SELECT true AS reserved
WHERE %(schema)s::text IN ('recstore', 'recstore_private', 'information_schema')
    OR starts_with(%(schema)s, 'pg_')
    OR EXISTS (
        SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = %(schema)s AND c.relname = '_items' AND c.relkind = 'p'
    );

-- name: select_digests
SELECT r.object_digests FROM recstore_private.recommenders r WHERE r.id = %(recommender_id)s;

-- name: grants_of_seen_tables
-- Roles other than the owner with rights on the tables of published seen items.
SELECT DISTINCT format('%%I.%%I', n.nspname, c.relname) AS relation,
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL aclexplode(c.relacl) a
WHERE n.nspname = %(schema)s AND c.relname ~ '^_seen_[0-9]+$' AND a.grantee <> c.relowner;

-- name: revokes
-- The REVOKEs of what other roles than the owners have in these schemas, as ALTER DEFAULT PRIVILEGES gives it to new objects;
-- without PUBLIC's EXECUTE on functions.
SELECT format('REVOKE ALL ON %%s FROM %%s', o.object, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
    AS statement
FROM (
    SELECT n.oid AS schema, format('SCHEMA %%I', n.nspname) AS object, n.nspacl AS acl, n.nspowner AS owner FROM pg_namespace n
    UNION ALL
    SELECT c.relnamespace, CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::regclass, c.relacl, c.relowner
    FROM pg_class c
    UNION ALL
    SELECT p.pronamespace, 'FUNCTION ' || p.oid::regprocedure, p.proacl, p.proowner FROM pg_proc p
) o
JOIN pg_namespace n ON n.oid = o.schema
CROSS JOIN LATERAL aclexplode(o.acl) a
WHERE n.nspname = ANY (%(schemas)s) AND a.grantee <> o.owner AND (a.grantee <> 0 OR o.object NOT LIKE 'FUNCTION %%');

-- name: compare_views
-- Whether two views differ, and the relations that only one of them reads; for a login that owns the first, and has its search_path.
WITH reads AS (
    SELECT w.ev_class AS view, d.refobjid AS relation
    FROM pg_rewrite w
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
    WHERE d.refobjid <> w.ev_class
)
SELECT pg_get_viewdef(p.oid) <> pg_get_viewdef(n.oid) AS differ,
    ARRAY(
        SELECT r.relation::regclass::text FROM reads r WHERE r.view = p.oid
        EXCEPT SELECT r.relation::regclass::text FROM reads r WHERE r.view = n.oid
    ) AS former,
    ARRAY(
        SELECT r.relation::regclass::text FROM reads r WHERE r.view = n.oid
        EXCEPT SELECT r.relation::regclass::text FROM reads r WHERE r.view = p.oid
    ) AS named
FROM pg_class p, pg_class n
WHERE p.oid = to_regclass(%(present)s) AND n.oid = to_regclass(%(new)s) AND p.relowner = n.relowner
    AND pg_get_userbyid(p.relowner) = session_user;

-- name: own_row_security
-- Tables of a recommender that row-level security would empty for its readers.
SELECT format('%%I.%%I', n.nspname, c.relname) AS relation
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p') AND c.relrowsecurity
ORDER BY c.relname;

-- name: readable_table
-- A row if the relation exists: its name, whether this role may read it, and its columns.
SELECT n.nspname AS schema, c.relname AS name, has_table_privilege(c.oid, 'SELECT') AS readable,
    ARRAY(
        SELECT a.attname::text FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    ) AS columns
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = %(table)s::oid;

-- name: insert_recommender
INSERT INTO recstore_private.recommenders
    (name, definition, user_type, item_type, vector_type, dimensions, objects_version)
VALUES
    (%(name)s, %(definition)s, %(user_type)s, %(item_type)s, %(vector_type)s, %(dimensions)s, %(objects_version)s)
RETURNING id;

-- name: insert_pointer
WITH completion AS (
    INSERT INTO recstore_private.completions (recommender_id) VALUES (%(recommender_id)s)
)
INSERT INTO recstore_private.pointers (recommender_id) VALUES (%(recommender_id)s);

-- name: select_recommender
SELECT r.id, r.name, r.definition, r.user_type, r.item_type, r.vector_type, r.dimensions, r.objects_version,
    r.object_digests, n.nspname AS vector_schema, r.held_out_key
FROM recstore_private.recommenders r
JOIN pg_extension e ON e.extname = 'vector'
JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE r.name = %(name)s;

-- name: lock_recommender
-- Locked until the end of each transaction that changes a recommender's objects.
SELECT r.object_digests, r.objects_version, r.definition
FROM recstore_private.recommenders r
WHERE r.id = %(recommender_id)s
FOR NO KEY UPDATE;

-- name: renamed_schema
-- The present name of a recommender's schema that was renamed, by its comment, and what undoes that.
SELECT n.nspname AS name, format('ALTER SCHEMA %%I RENAME TO %%I;', n.nspname, %(schema)s::text) AS back
FROM pg_namespace n
WHERE obj_description(n.oid, 'pg_namespace') = format('Recommendations by recstore: %%s.', %(schema)s::text)
    AND to_regnamespace(quote_ident(%(schema)s::text)) IS NULL;

-- name: installed_objects
-- A recommender's existing views, functions and types.
SELECT 'view ' || c.relname AS name FROM pg_class c
WHERE c.relnamespace = to_regnamespace(%(quoted)s) AND c.relkind = 'v'
UNION
SELECT 'type ' || c.relname FROM pg_class c
WHERE c.relnamespace = to_regnamespace(%(quoted)s) AND c.relkind = 'c'
UNION
SELECT 'function ' || p.proname FROM pg_proc p
WHERE p.pronamespace = to_regnamespace(%(quoted)s);

-- name: select_recommender_names
SELECT r.name FROM recstore_private.recommenders r ORDER BY r.name;

-- name: select_recommenders
SELECT s.*, r.definition
FROM recstore.status s
JOIN recstore.recommenders r ON r.name = s.recommender
WHERE %(name)s::text IS NULL OR s.recommender = %(name)s
ORDER BY s.recommender;

-- name: update_definition
UPDATE recstore_private.recommenders SET definition = %(definition)s WHERE id = %(recommender_id)s;

-- name: scan_exactly
-- Let lists of items come by exact scan, whatever calibration chose.
UPDATE recstore_private.generations
SET recommend_ef = NULL,
    similar_ef = NULL,
    calibration = jsonb_set(
        jsonb_set(calibration, '{recommend,chosen,ef}', 'null', false), '{similar,chosen,ef}', 'null', false)
WHERE recommender_id = %(recommender_id)s AND state IN ('ready', 'withheld', 'published');

-- name: update_storage
UPDATE recstore_private.recommenders
SET vector_type = %(vector_type)s, dimensions = %(dimensions)s
WHERE id = %(recommender_id)s;

-- name: update_objects
UPDATE recstore_private.recommenders
SET objects_version = %(objects_version)s, object_digests = %(object_digests)s
WHERE id = %(recommender_id)s;

-- name: delete_recommender
DELETE FROM recstore_private.recommenders WHERE id = %(recommender_id)s;

-- name: schema_dependents
-- What DROP SCHEMA CASCADE drops too: objects elsewhere (views, functions, column defaults, constraints, policies) that
-- depend on objects of the schema, and objects in the schema that recstore did not create.
WITH ours AS (
    SELECT 'pg_class'::regclass::oid AS classid, c.oid AS objid FROM pg_class c
    WHERE c.relnamespace = to_regnamespace(%(quoted)s)
    UNION ALL
    SELECT 'pg_proc'::regclass, p.oid FROM pg_proc p WHERE p.pronamespace = to_regnamespace(%(quoted)s)
    UNION ALL
    SELECT 'pg_type'::regclass, t.oid FROM pg_type t WHERE t.typnamespace = to_regnamespace(%(quoted)s)
),
depending AS (
    SELECT
        d.classid,
        d.objid,
        CASE d.classid
            WHEN 'pg_rewrite'::regclass THEN (SELECT w.ev_class FROM pg_rewrite w WHERE w.oid = d.objid)
            WHEN 'pg_attrdef'::regclass THEN (SELECT a.adrelid FROM pg_attrdef a WHERE a.oid = d.objid)
            WHEN 'pg_constraint'::regclass THEN (SELECT n.conrelid FROM pg_constraint n WHERE n.oid = d.objid)
            WHEN 'pg_policy'::regclass THEN (SELECT p.polrelid FROM pg_policy p WHERE p.oid = d.objid)
            WHEN 'pg_trigger'::regclass THEN (SELECT t.tgrelid FROM pg_trigger t WHERE t.oid = d.objid)
            WHEN 'pg_statistic_ext'::regclass THEN (SELECT s.stxrelid FROM pg_statistic_ext s WHERE s.oid = d.objid)
            WHEN 'pg_publication_rel'::regclass THEN (SELECT p.prrelid FROM pg_publication_rel p WHERE p.oid = d.objid)
        END AS relation
    FROM pg_depend d
    JOIN ours o ON o.classid = d.refclassid AND o.objid = d.refobjid
    WHERE d.deptype IN ('n', 'a')
)
SELECT DISTINCT
    CASE
        WHEN d.classid = 'pg_rewrite'::regclass THEN pg_describe_object('pg_class'::regclass, d.relation, 0)
        ELSE pg_describe_object(d.classid, d.objid, 0)
    END AS object
FROM depending d
WHERE (d.classid, d.objid) NOT IN (SELECT o.classid, o.objid FROM ours o)
    AND coalesce(d.relation, 0) NOT IN (SELECT o.objid FROM ours o WHERE o.classid = 'pg_class'::regclass)
UNION
SELECT pg_describe_object('pg_class'::regclass, c.oid, 0)
FROM pg_class c
WHERE c.relnamespace = to_regnamespace(%(quoted)s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    AND c.relname <> ALL (%(known)s) AND c.relname !~ '^_(items|users|seen|fold_in|basis|refreshed)(_old)?(_[0-9]+)?$'
UNION
SELECT pg_describe_object('pg_proc'::regclass, p.oid, 0)
FROM pg_proc p
WHERE p.pronamespace = to_regnamespace(%(quoted)s) AND p.proname <> ALL (%(known)s)
ORDER BY object;

-- name: relations_read
-- Every relation outside the recommender's schema that a view of it reads, also through other views, the role with whose rights
-- it is read (`reader` NULL stands for the caller), and the GRANTs that this role lacks; then the functions that these views
-- call, always with the rights of the caller, who may not.
WITH RECURSIVE reads AS (
    SELECT c.oid AS relation, NULL::oid AS reader
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relname = %(view)s AND c.relkind = 'v'
    UNION
    SELECT b.oid,
        CASE
            WHEN EXISTS (
                SELECT FROM unnest(v.reloptions) AS o (option)
                WHERE o.option IN ('security_invoker=true', 'security_invoker=on', 'security_invoker=1', 'security_invoker=yes')
            ) THEN r.reader
            ELSE v.relowner
        END
    FROM reads r
    JOIN pg_class v ON v.oid = r.relation AND v.relkind = 'v'
    JOIN pg_rewrite w ON w.ev_class = v.oid
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
    JOIN pg_class b ON b.oid = d.refobjid AND b.oid <> v.oid AND b.relkind IN ('r', 'p', 'v', 'm', 'f')
    JOIN pg_namespace m ON m.oid = b.relnamespace AND m.nspname <> %(schema)s
),
roles AS (
    SELECT r.oid, r.rolname::text AS name, r.rolsuper OR r.rolbypassrls AS sees_through FROM pg_roles r
    UNION ALL
    SELECT 0, 'public', false
),
actors AS (
    SELECT DISTINCT r.relation, r.reader IS NULL AS direct, a.oid, a.name AS rolname, a.sees_through
    FROM reads r
    JOIN roles a ON a.oid = r.reader OR (r.reader IS NULL AND a.name = %(role)s)
)
SELECT
    format('%%I.%%I', n.nspname, c.relname) AS object,
    r.direct,
    r.rolname AS actor,
    pg_get_userbyid(c.relowner)::text AS owner,
    ARRAY(
        SELECT 'GRANT ' || m.missing || CASE r.oid WHEN 0 THEN ' TO PUBLIC;' ELSE format(' TO %%I;', r.rolname) END
        FROM (
            SELECT format('USAGE ON SCHEMA %%I', n.nspname) WHERE NOT has_schema_privilege(r.oid, n.oid, 'USAGE')
            UNION ALL
            SELECT format('SELECT ON %%I.%%I', n.nspname, c.relname)
            WHERE NOT coalesce(
                (
                    SELECT bool_and(has_column_privilege(r.oid, c.oid, d.refobjsubid::smallint, 'SELECT'))
                    FROM reads v
                    JOIN pg_rewrite w ON w.ev_class = v.relation
                    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                        AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid > 0
                    WHERE v.relation <> c.oid
                ),
                has_any_column_privilege(r.oid, c.oid, 'SELECT')
            )
        ) m (missing)
    ) AS grants,
    c.relrowsecurity AND NOT r.sees_through AND (c.relforcerowsecurity OR NOT pg_has_role(r.oid, c.relowner, 'USAGE')) AS row_security,
    p.permissive AS policies,
    p.restrictive AS restricted,
    p.everything AND NOT p.restrictive AS sees_all
FROM actors r
JOIN pg_class c ON c.oid = r.relation
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE p.polpermissive) AS permissive,
        coalesce(bool_or(NOT p.polpermissive), false) AS restrictive,
        coalesce(bool_or(p.polpermissive AND pg_get_expr(p.polqual, p.polrelid) = 'true'), false) AS everything
    FROM pg_policy p
    WHERE p.polrelid = c.oid AND p.polcmd IN ('r', '*')
        AND EXISTS (SELECT FROM unnest(p.polroles) AS o (role) WHERE o.role = 0 OR pg_has_role(r.oid, o.role, 'USAGE'))
) p
WHERE NOT (n.nspname = %(schema)s AND c.relname = %(view)s)
UNION ALL
SELECT DISTINCT
    'function ' || p.oid::regprocedure, true, a.name, pg_get_userbyid(p.proowner)::text,
    ARRAY['GRANT EXECUTE ON FUNCTION ' || p.oid::regprocedure || CASE a.oid WHEN 0 THEN ' TO PUBLIC;' ELSE format(' TO %%I;', a.name) END],
    false, 0, false, true
FROM reads r
JOIN pg_rewrite w ON w.ev_class = r.relation
JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
JOIN pg_proc p ON p.oid = o.oprcode OR (d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid)
JOIN roles a ON a.name = %(role)s AND NOT has_function_privilege(a.oid, p.oid, 'EXECUTE')
ORDER BY 1, 2 DESC;

-- name: readers_of_seen
-- The roles that may ask for published seen items of any user, by a grant or by that of a role whose rights they inherit.
SELECT r.rolname::text AS role
FROM pg_roles r
CROSS JOIN pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = %(schema)s AND p.proname = %(function)s AND has_function_privilege(r.oid, p.oid, 'EXECUTE')
    AND NOT (r.rolsuper OR r.rolbypassrls OR pg_has_role(r.oid, p.proowner, 'USAGE')) AND NOT starts_with(r.rolname, 'pg_')
    AND (%(inheriting)s::text IS NULL OR pg_has_role(r.oid, %(inheriting)s::name, 'USAGE'))
ORDER BY 1;

-- name: grants_of_lists
-- The GRANTs that a role needs to read a table of lists, and does not have: whether this role may make each, or who has to.
SELECT
    format('GRANT USAGE ON SCHEMA %%I TO %%I;', n.nspname, %(role)s::text) AS grant,
    pg_has_role(n.nspowner, 'USAGE') AS ours,
    'still to be run by the owner of the schema of lists' AS whose
FROM parse_ident(%(table)s) p (parts)
JOIN pg_namespace n ON n.nspname = p.parts[1]
WHERE cardinality(p.parts) = 2 AND NOT has_schema_privilege(%(role)s, n.oid, 'USAGE')
UNION ALL
SELECT
    format('GRANT SELECT ON %%I.%%I TO %%I;', p.parts[1], p.parts[2], %(role)s::text),
    coalesce(pg_has_role(c.relowner, 'USAGE'), false),
    CASE WHEN c.oid IS NULL THEN 'once the lists are written' ELSE 'still to be run by the owner of the lists' END
FROM parse_ident(%(table)s) p (parts)
LEFT JOIN pg_namespace n ON n.nspname = p.parts[1]
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.parts[2]
WHERE cardinality(p.parts) = 2 AND (c.oid IS NULL OR NOT has_table_privilege(%(role)s, c.oid, 'SELECT'));

-- name: grants_on
-- Privileges on a relation, except the owner's.
SELECT
    CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee,
    a.privilege_type,
    a.is_grantable
FROM pg_class c
CROSS JOIN LATERAL aclexplode(c.relacl) a
WHERE c.oid = to_regclass(%(relation)s) AND a.grantee <> c.relowner;

-- name: readers_of
-- The roles, unquoted, that may SELECT from a relation by a grant.
SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'public' ELSE pg_get_userbyid(a.grantee)::text END AS role
FROM pg_class c
CROSS JOIN LATERAL aclexplode(c.relacl) a
WHERE c.oid = to_regclass(%(view)s) AND a.grantee <> c.relowner AND a.privilege_type = 'SELECT'
ORDER BY role;

-- name: functions_named
-- The functions with this name, and the roles that may execute them.
SELECT
    p.oid,
    p.oid::regprocedure::text AS signature,
    ARRAY(
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
        FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
        WHERE a.grantee <> p.proowner AND a.privilege_type = 'EXECUTE'
    ) AS grantees
FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = %(schema)s AND p.proname = %(name)s;

-- name: partitions_of
SELECT c.relname AS name, i.inhdetachpending AS detach_pending
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass(%(parent)s)
ORDER BY c.relname;

-- name: holders_of_own_relations
-- Sessions in a transaction that has read, or written, recstore's own tables and views.
SELECT
    'process ' || l.pid || coalesce(' (' || nullif(concat_ws(', ', nullif(a.application_name, ''), 'role ' || a.usename), '') || ')', '')
        || coalesce(', in a transaction since ' || date_trunc('second', a.xact_start), '') AS who
FROM (
    SELECT DISTINCT l.pid
    FROM pg_locks l
    JOIN pg_class c ON c.oid = l.relation
    WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_backend_pid()
        AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
        AND c.relnamespace IN (to_regnamespace('recstore'), to_regnamespace('recstore_private'))
) l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
ORDER BY l.pid;
