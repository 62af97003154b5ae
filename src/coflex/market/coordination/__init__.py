"""One engine for every market design: a design, a case of grids, sellers and needs in; what each session decided out.

Everything is a pure function of the design and the case, so a run repeats to the bit. `run` holds the sessions in the
order of their gates; `outcome` says what a run leaves behind.
"""
