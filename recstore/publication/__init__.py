"""From vectors to a live generation: attach, load, index, calibrate, check, flip; and what removes old ones.

`generations` holds the tables of a generation from attaching to dropping, `barriers` whom that waits for, `loading` the
bulk COPY, `indexes`, `calibration` and `checks` what makes a generation complete, `flipping` what makes it live, `erasing` keeps
erased users out.
"""
