"""Turn results into pictures and pages, for people who read them after an evaluation or a search.

`page` writes HTML with everything in it, `curve_plots` and `search_plots` draw with matplotlib, without pyplot. Knows
the results' data, not how they were measured: no database, no trainer. Importing this package imports no matplotlib.
"""
