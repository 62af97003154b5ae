"""Market designs compared: the indicators of each run, a table for the terminal, a page to open in a browser."""

from coflex.reporting.coordination.definitions import DEFINITIONS as DEFINITIONS
from coflex.reporting.coordination.definitions import Definition as Definition
from coflex.reporting.coordination.definitions import manual as manual
from coflex.reporting.coordination.kpis import Kpis as Kpis
from coflex.reporting.coordination.kpis import as_json as as_json
from coflex.reporting.coordination.kpis import indicators as indicators
from coflex.reporting.coordination.kpis import kpis as kpis
