"""The table of registered keys as a file, CSV or Parquet, one row a key.

point         number that messages are signed as, 0 to 4294967295
public_key    Ed25519, 64 hexadecimal digits (in Parquet also 32 bytes)
owner, unit   who it belongs to and what it measures; may be left out
from, until   validity, ISO 8601 with a zone; empty: always
quantities    numbers of what it may measure, with spaces between; empty: all
most_kw       largest power either way; empty: a million
kind          "point" (if left out), or "party" for keys of the platform and of parties
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coflex.domain.errors import CoflexError, Finding, Refused, refuse
from coflex.metering.admission import FOREVER, Signer, Signers

COLUMNS = ("point", "public_key", "owner", "unit", "from", "until", "quantities", "most_kw", "kind")
_MOST_TOLD = 100


def load(path: Path) -> Signers:
    """Read the table. Raises Refused with every fault of it, CoflexError where it cannot be read."""
    signers, faults = Signers(), []
    for line, row in enumerate(_rows(path), start=2):
        try:
            signers.put(_signer(row))
        except Refused as fault:
            faults += [Finding(f"{path.name}, row {line}", one.code, one.message) for one in fault.findings]
        except (ValueError, TypeError, OverflowError):
            told = "A number, key or time of this row cannot be read; write it as docs/measurements.md says."
            faults.append(Finding(f"{path.name}, row {line}", "bad_row", told))
        if len(faults) >= _MOST_TOLD:
            break
    refuse(str(path), faults)
    return signers


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
        else:
            options = csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string()), strings_can_be_null=False)
            table = csv.read_csv(path, convert_options=options)
    except (OSError, pa.ArrowException) as fault:
        raise CoflexError(f"{path} cannot be read as a table: {fault}.", "Give a CSV or Parquet file.") from fault
    unknown = sorted(set(table.column_names) - set(COLUMNS))
    absent = [name for name in ("point", "public_key") if name not in table.column_names]
    findings = [Finding(path.name, "unknown_column", f"There is no column '{name}'; take it out.") for name in unknown]
    findings += [Finding(path.name, "no_column", f"The column '{name}' is missing; add it.") for name in absent]
    refuse(str(path), findings)
    for batch in table.to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()


def _signer(row: dict[str, Any]) -> Signer:
    key, quantities, most = row["public_key"], row.get("quantities") or "", row.get("most_kw")
    if row.get("kind") not in (None, "", "point", "party"):
        raise ValueError
    return Signer(
        number=int(row["point"]),
        public_key=key if isinstance(key, bytes) else bytes.fromhex(key),
        owner=row.get("owner") or "",
        unit=row.get("unit") or "",
        since=_ms(row.get("from"), 0),
        until=_ms(row.get("until"), FOREVER),
        quantities=frozenset(map(int, str(quantities).split())) or frozenset(range(1, 8)),
        most_w=1e9 if most in (None, "") else float(most) * 1000,
        party=row.get("kind") == "party",
    )


def _ms(given: Any, otherwise: int) -> int:
    if given in (None, ""):
        return otherwise
    at = given if isinstance(given, datetime) else datetime.fromisoformat(given)
    if at.tzinfo is None:
        raise ValueError
    since = at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
