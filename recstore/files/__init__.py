"""Files in and out: `load` makes a table of a file, `archive` a file of a generation, and a generation of such a file."""
