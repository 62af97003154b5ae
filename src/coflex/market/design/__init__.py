"""A market design is a document: sessions in order, who buys, what grid is seen, what is forwarded.

`read_design` takes a YAML text and gives a `Design`, or refuses it with every fault, its line and its path. A design
that was read is sound on days of 92, 96 and 100 quarter-hours; `schedule` lays it on one delivery day.
"""

from coflex.market.design.document import (
    Activation,
    Buyer,
    Carry,
    Design,
    DistributionGrid,
    Exclusion,
    Forward,
    Interface,
    Iterate,
    Matching,
    Needs,
    Offered,
    OwnMeans,
    Pricing,
    Priority,
    Resource,
    Service,
    Session,
    Tender,
    Trades,
    TransmissionGrid,
    Validation,
)
from coflex.market.design.reading import read_design
from coflex.market.design.schedule import SessionPlan, schedule
from coflex.market.design.schema import design_schema
from coflex.market.design.shelf import design_text, designs, load_design

__all__ = [
    "Activation",
    "Buyer",
    "Carry",
    "Design",
    "DistributionGrid",
    "Exclusion",
    "Forward",
    "Interface",
    "Iterate",
    "Matching",
    "Needs",
    "Offered",
    "OwnMeans",
    "Pricing",
    "Priority",
    "Resource",
    "Service",
    "Session",
    "SessionPlan",
    "Tender",
    "Trades",
    "TransmissionGrid",
    "Validation",
    "design_schema",
    "design_text",
    "designs",
    "load_design",
    "read_design",
    "schedule",
]
