"""What a connection pooler on the worker's URL does to it."""

from collections.abc import Iterator

from recstore.doctor.checks import check
from recstore.doctor.findings import Finding, error, note, ok
from recstore.doctor.subject import Subject
from recstore.postgres.connection import conninfo
from recstore.postgres.pooler import kind_of, observe


@check("pooler", "sessions")
def pooler(subject: Subject) -> Iterator[Finding]:
    kind = kind_of(observe(conninfo(subject.url, "recstore:doctor")))
    if kind == "transaction":
        yield error(
            "the URL leads through a pooler that lends server sessions by the transaction (PgBouncer's pool_mode"
            " transaction, or the like)",
            "Applications may use it, since nothing they need of recstore outlives a transaction. Workers and commands may not:"
            " their locks and settings belong to a session, and would be lost, or left to others. Give them the server's"
            " own address and port, or a pool in session mode.",
            "RECSTORE_DATABASE_URL=postgresql://ROLE:PASSWORD@THE-SERVER-ITSELF:5432/" + subject.database,
        )
    elif kind == "session":
        yield note(
            "the URL leads through a pooler that lends a server session to each connection",
            "That works. But the server notices a killed worker only when the pooler does, and keeps its lock until then; a"
            " direct connection is better.",
        )
    else:
        yield ok("a direct connection: no pooler in between")
