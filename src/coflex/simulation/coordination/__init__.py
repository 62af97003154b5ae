"""Cases that market designs are compared on: one that can be checked by hand, one that looks like a region."""

from coflex.simulation.coordination.reference import reference as reference
from coflex.simulation.coordination.shelf import CASES as CASES
from coflex.simulation.coordination.shelf import case as case
from coflex.simulation.coordination.small import small as small
