"""Writes docs/requirements.md: every requirement, whether tests prove it, and which.

A test says what it proves with `@pytest.mark.spec("GRID-06")`; the marks are read from the source, nothing is run.
`python tools/requirements.py` writes the page; `tests/test_house.py` fails when the page is stale.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "requirements.md"

CHAPTERS = {
    "REG": "Register and qualification",
    "GRID": "Grid",
    "FCST": "Forecast",
    "MKT": "Market",
    "ACT": "Activation and measurement",
    "CERT": "Evidence",
    "SET": "Settlement",
    "KPI": "Indicators",
    "SUP": "Tools of service providers",
    "AGG": "Tools of aggregators",
    "SOT": "Tools of system operators",
    "XCH": "Exchange",
    "PLAT": "Platform",
}

ROWS = {
    "REG-01": "Parties sign up once, an operator admits them, and each acts in one or several roles",
    "REG-02": "Points and units with place, owner, power, and every time that limits how they move",
    "REG-03": "One entrance for providers; the register passes units on and brings the operators' answers back",
    "REG-04": "Static light by power flow, each unit alone and all at once, with the limit that proves it",
    "REG-05": "Groups: at most one local and one global for a unit, of one provider, never sold in both at a time",
    "REG-06": "A catalogue of products with where, when, how fast, how long, how exact and how paid",
    "REG-07": "A test signal proves that a group delivers; failures are corrected, passes expire",
    "REG-08": "A passed test counts for a product that asks for no more",
    "REG-09": "Scheduling units built by offer and acceptance, tested under the TSO, agreed in writing",
    "REG-10": "The owner's consent is kept with its scope and end; personal data can be erased",
    "REG-11": "Each field has someone who may read and someone who may write it, and a full history",
    "GRID-01": "Grids with their yearly profiles from five formats; faults name the element",
    "GRID-02": "Power flow over days and years, balanced and by phase",
    "GRID-03": "What is beyond a limit tomorrow and in the next hours: where, when, how far; the DSO is called",
    "GRID-04": "Taps, switches and capacitors first: what they solve is not bought",
    "GRID-05": "Needs from the rest: place, time, direction, volume, and the units that act on it",
    "GRID-06": "Dynamic light of a perimeter, safe for each split of its capability over the units",
    "GRID-07": "Perimeters drawn anew around the day's bottlenecks never lose capability in total",
    "GRID-08": "A list of outcomes is validated line by line: whole, up to some kW, or not and why",
    "GRID-09": "The TSO gets the substation's profile again after each change",
    "GRID-10": "The area of P and Q that a distribution grid can reach at its interface, with its cost",
    "GRID-11": "The state of the grid estimated from sensors, bad ones flagged",
    "GRID-12": "Planning data for the TSO: short-circuit power, outages, transfers, forecasts by technology",
    "GRID-13": "A transmission grid with several distribution grids, and the needs of the TSO",
    "GRID-14": "Grid data leave the DSO as effects and lights, never as a map, unless it allows more",
    "FCST-01": "Forecasts of load, sun, wind, price and state of charge over three leads, with quantiles",
    "FCST-02": "How good forecasts are, by replays of the past against simple methods, as accuracy levels",
    "FCST-03": "Weather through one door that also works from files",
    "MKT-01": "A market design is a checked document: sessions, buyers, gates, horizons, grid, prices, forwarding",
    "MKT-02": "The life of a session; nothing is taken after its gate, and everyone concerned is told",
    "MKT-03": "Offers of units or groups with steps, blocks, least quantities, runs, energy, exclusions, reach",
    "MKT-04": "Requests of operators and balance groups, and needs that follow from the grid",
    "MKT-05": "Merit order lists, preliminary and definitive, with the reason for each line left out",
    "MKT-06": "A day cleared on the real grid, standing under AC power flow; nodal prices of P and Q",
    "MKT-07": "The DSO cuts or strikes lines of a list; the next ones take their place until it is safe",
    "MKT-08": "Some lines more than asked for, in reserve",
    "MKT-09": "What one session took no other gets for the same time; nothing is ever sold twice",
    "MKT-10": "Six local sessions in sequence, each before its global one, definitive for four hours each",
    "MKT-11": "The TSO buys net of what local activations moved; movement against it is told as a loss",
    "MKT-12": "Continuous trading with price and time priority",
    "MKT-13": "Long-term contracts for availability whose units offer by themselves",
    "MKT-14": "What is left goes on to the TSO's list, in bundles, under the light, and results come back",
    "MKT-15": "Reserve bought with an eye on what may come: two stages over scenarios",
    "MKT-16": "A market in which balance groups buy too, and one between peers",
    "MKT-17": "Storage leased by auction",
    "MKT-18": "Market power and gaming watched by indices",
    "MKT-19": "One outcome for one set of inputs, in any order of arrival; ties go by a rule",
    "ACT-01": "Orders pass from operator to customer, and each hop confirms",
    "ACT-02": "An agent at the device that measures, signs, buffers and obeys",
    "ACT-03": "Set points watched; the DSO may take one back, the TSO calls the next, the provider adapts",
    "ACT-04": "The TSO changes or stops what is running",
    "ACT-05": "Balancing services with their own signals: automatic, manual, frequency-bound",
    "ACT-06": "A provider replaces a failed unit from its own within a quarter-hour",
    "ACT-07": "Customers see their plan and say when they are away",
    "CERT-01": "Signed records in a log that cannot be rewritten; anyone can check it offline",
    "CERT-02": "Customer data released to those who may see them",
    "CERT-03": "The log's state anchored in a public ledger",
    "SET-01": "Baselines: nominated, before and after, similar days, control group, regression",
    "SET-02": "Delivery by service: as metered, as asked, as available, reactive; small misses forgiven",
    "SET-03": "Three ways of pricing, availability, penalties, fees, and who pays for which cause",
    "SET-04": "The balance group is made whole for energy that flexibility moved",
    "SET-05": "Statements and invoices, the owner's share, and disputes that settle one line anew",
    "SET-06": "Paid equals received plus fees, to the cent, always",
    "KPI-01": "Messages, activated response in power and offers, the DSO's part",
    "KPI-02": "Effort of qualification, weight of local limits, efficiency against one coupled market, staying on",
    "KPI-03": "Violations and curtailment avoided, losses, cost, liquidity, the price of coordinating",
    "SUP-01": "The cheapest schedule of a portfolio under market and grid limits",
    "SUP-02": "Several markets served at once, under risk, with bid curves",
    "SUP-03": "Where, how large and when to build",
    "SUP-04": "Renewables with storage as a dispatchable whole",
    "SUP-05": "A virtual power plant and its balancing bids",
    "SUP-06": "Pumps and tanks as flexibility",
    "AGG-01": "A request answered with the best offer out of thousands of owners",
    "AGG-02": "A market between aggregator and owners with its economic properties measured",
    "AGG-03": "A reward in, a profile out",
    "AGG-04": "Shares by contract, and private data that stay at home",
    "SOT-01": "Voltage and reactive power coordinated over the interface",
    "SOT-02": "Enough inertia, and no more than that",
    "SOT-03": "Build or buy: grid extension against flexibility",
    "SOT-04": "Needs of the coming years",
    "XCH-01": "The European market documents in and out, each received one acknowledged",
    "XCH-02": "Grids and limits in the common grid model",
    "XCH-03": "Three flexibility protocols, tried with foreign clients",
    "XCH-04": "Tables for people: CSV, Excel, Parquet",
    "XCH-05": "Connectors to wholesale and TSO markets",
    "PLAT-01": "A web interface for programs with keys, sign-on and roles",
    "PLAT-02": "A page for each role",
    "PLAT-03": "Researchers run tools, compare and export",
    "PLAT-04": "One file and no server by default; a database server, a broker and large jobs when asked for",
    "PLAT-05": "What was confirmed survives a crash; a restart goes on; a gate fires once",
    "PLAT-06": "Open data without names, transparency reports, data for surveillance",
    "PLAT-07": "The market operator acts for a party, marked as such, and runs a step again with better data",
}

# What a row still lacks although tests prove a part of it.
PARTLY = {
    "GRID-03": "needs are messages in the log; no operator is called",
    "GRID-07": "a light takes any drawing, but a day keeps the perimeters of its case",
    "GRID-12": "computed; no document of it is sent, and no grid evolves over years",
    "FCST-01": "load and generation from a year of profiles; no prices and no state of charge",
    "FCST-02": "errors and quantile losses, not yet condensed to levels",
    "MKT-01": "every design runs on a case in comparisons; the operating day holds those of one buyer a session",
    "MKT-04": "requests for a place are of reactive power alone; the operating day has the TSO's and the grid's needs",
    "MKT-06": "in the operating day reactive power follows active; its offers are sold in compared designs",
    "ACT-07": "owners set what their units may give, and read what is held of them and their set points; no page yet",
    "SET-02": "all of it from a folder; through the service no reactive energy, and no energy of regulation",
    "XCH-04": "CSV only",
}


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The page as it should be. Raises ValueError on a row that does not exist, or a remark on one without a test."""
    proofs = collect(ROOT / "tests")
    unknown = sorted(set(proofs) - set(ROWS))
    idle = sorted(set(PARTLY) - set(proofs))
    if unknown or idle:
        raise ValueError(f"rows that do not exist: {unknown}; remarks on rows without a test: {idle}")
    status = {row: _status(row, proofs) for row in ROWS}
    count = {name: sum(one == name for one in status.values()) for name in ("proved", "partly", "open")}
    lines = [
        "# Requirements",
        "",
        "Written by `make requirements` from the marks of the tests (`@pytest.mark.spec`); a test fails when it is",
        "stale.",
        "*proved*: tests of this repository prove the row. *partly*: they prove a part, and what lacks is said.",
        "*open*: nothing proves it yet.",
        "",
        f"Of {len(ROWS)} rows {count['proved']} are proved, {count['partly']} partly, {count['open']} open.",
    ]
    for chapter, title in CHAPTERS.items():
        lines += ["", f"## {title} ({chapter})", "", "| row | promise | status | tests |", "| --- | --- | --- | --- |"]
        lines += [_line(row, status[row], proofs) for row in ROWS if row.partition("-")[0] == chapter]
    return "\n".join(lines) + "\n"


def collect(folder: Path) -> dict[str, dict[str, int]]:
    """How many tests of which file prove each row: row to file (below `folder`) to count."""
    found: dict[str, dict[str, int]] = {}
    for file in sorted(folder.rglob("test_*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        place = file.relative_to(folder).as_posix()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for row in sorted({row for mark in node.decorator_list for row in _rows(mark)}):
                    files = found.setdefault(row, {})
                    files[place] = files.get(place, 0) + 1
    return found


def _rows(mark: ast.expr) -> Iterator[str]:
    """The rows that a decorator names, also inside `pytest.param(..., marks=...)`."""
    for node in ast.walk(mark):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "spec":
            yield from (str(word.value) for word in node.args if isinstance(word, ast.Constant))


def _status(row: str, proofs: dict[str, dict[str, int]]) -> str:
    return "open" if row not in proofs else "partly" if row in PARTLY else "proved"


def _line(row: str, status: str, proofs: dict[str, dict[str, int]]) -> str:
    files = proofs.get(row, {})
    where = ", ".join(f"[{file}](../tests/{file})" for file in files)
    told = f"partly: {PARTLY[row]}" if status == "partly" else status
    return f"| {row} | {ROWS[row]} | {told} | {f'{sum(files.values())} in {where}' if files else ''} |"


if __name__ == "__main__":
    main()
