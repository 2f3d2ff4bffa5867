"""From results to pictures and pages: what people look at after an evaluation or a search.

`plots` draws them (matplotlib, no pyplot, nothing kept between calls), `report` writes the page with everything in it.
Knows the results' data and nothing of how they came about: no database, no trainer. Nothing is imported here, so
that a command line which only might write a report does not wait for matplotlib.
"""
