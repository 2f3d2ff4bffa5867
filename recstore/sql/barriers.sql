-- Transactions that must end before a flip or a removal.

-- name: set_barrier
UPDATE recstore_private.generations
SET barrier = %(barrier)s, barrier_transactions = %(transactions)s
WHERE generation = %(generation)s;

-- name: select_barrier
SELECT g.barrier, g.barrier_transactions AS transactions, g.barrier_xid AS xid
FROM recstore_private.generations g
WHERE g.generation = %(generation)s;

-- name: lock_holding_transactions
-- Transactions that hold a lock on one of these relations now (`strong`: one that maintenance takes, no reader or writer).
-- pg_locks shows them whatever the role; who they are may be hidden.
SELECT DISTINCT l.virtualtransaction
FROM pg_locks l
WHERE l.locktype = 'relation'
    AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
    AND l.relation = ANY (%(relations)s::regclass[]::oid[])
    AND (NOT %(strong)s OR l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock'))
    AND l.pid IS DISTINCT FROM pg_backend_pid();

-- name: open_transactions
-- Every transaction open in this database, whatever its role.
SELECT DISTINCT l.virtualtransaction
FROM pg_locks l
JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'virtualxid' AND l.granted
    AND (a.datname = current_database() OR a.datname IS NULL)
    AND l.pid <> pg_backend_pid();

-- name: still_open
-- Those of these transactions that are still open, with the sessions as far as this role may see. A prepared transaction has
-- no session; the lock on its own id leads to its name.
SELECT DISTINCT ON (l.virtualtransaction)
    l.virtualtransaction AS transaction,
    l.pid,
    coalesce(a.usename, p.owner) AS role,
    coalesce(a.application_name, 'the prepared transaction ' || quote_literal(p.gid), '') AS application_name,
    coalesce(a.xact_start, p.prepared) AS since
FROM pg_locks l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_locks t ON l.pid IS NULL AND t.locktype = 'transactionid' AND t.virtualtransaction = l.virtualtransaction
LEFT JOIN pg_prepared_xacts p ON p.transaction = t.transactionid
WHERE l.virtualtransaction = ANY (%(transactions)s)
ORDER BY l.virtualtransaction;

-- name: old_snapshots
-- Backends, and standbys with feedback, whose snapshot may be older than this transaction (a standby that uses a slot shows
-- there). A number from the future is another cluster's, from before a dump and restore, and holds nothing up.
SELECT a.pid, a.usename AS role, coalesce(a.application_name, '') AS application_name, a.xact_start AS since
FROM pg_stat_activity a
WHERE a.backend_xmin IS NOT NULL
    AND (a.datname = current_database() OR a.datname IS NULL)
    AND a.pid <> pg_backend_pid()
    AND %(xid)s::text::xid8 < pg_snapshot_xmax(pg_current_snapshot())
    AND age(a.backend_xmin) >= age(%(xid)s::text::xid8::xid)
UNION ALL
SELECT s.active_pid, NULL, 'replication slot ' || s.slot_name, NULL
FROM pg_replication_slots s
WHERE s.slot_type = 'physical' AND s.xmin IS NOT NULL
    AND %(xid)s::text::xid8 < pg_snapshot_xmax(pg_current_snapshot())
    AND age(s.xmin) >= age(%(xid)s::text::xid8::xid);
