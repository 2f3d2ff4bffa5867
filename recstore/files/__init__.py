"""Files in and out: `load` makes a table of a file, `archive` a file of a generation, and a generation of such a file.

`opening` and `delimited` read any file; `pair_files` and `split_files` read the splits of an evaluation with them.
"""
