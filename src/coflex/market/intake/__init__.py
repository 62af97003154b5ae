"""The intake of a session: which offers it takes, and every fault of the others (MKT-03).

An `Intake` keeps what a session has taken as bit masks over the quarter-hours of its horizon, so that an offer is
checked in microseconds however many there are; `intake` is the same check for offers that come all at once. Each rule
is written once. What depends on seller, product and direction alone is settled when they first meet, and remembered.
Everything is a pure function of the plan, the context and the offers; no clock is read.
"""

from coflex.market.intake.context import IntakeContext
from coflex.market.intake.session import Intake, intake, no_longer

__all__ = ["Intake", "IntakeContext", "intake", "no_longer"]
