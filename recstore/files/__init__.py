"""Files into tables: what a file is, which types its columns have, which of its lines are bad, and the COPY of the others.

A file is read twice: `examine` looks at all of it and writes nothing, `write` loads it in one transaction. Knows nothing of
recommenders.
"""
