"""Which reader a grid goes to is told by its content; what none can read is refused with what can be read."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from coflex.adapters.exchange.tables.grid_folder import read_grid_folder
from coflex.adapters.grids.door import ImportedGrid, read_grid
from coflex.adapters.grids.simbench import SimbenchGrid
from coflex.domain.errors import Refused
from coflex.grid.network import build, check
from support.grid_files import write_folder
from support.small_grids import radial

GOLDEN = Path(__file__).parents[1] / "golden"
CASE = GOLDEN / "case33bw" / "case33bw.m"
SMALL = {
    "version": "1.0",
    "type": "input",
    "is_batch": False,
    "attributes": {},
    "data": {
        "node": [{"id": 1, "u_rated": 400.0}, {"id": 2, "u_rated": 400.0}, {"id": 5, "u_rated": 400.0}],
        "line": [{"id": 3, "from_node": 1, "to_node": 2, "r1": 0.1, "x1": 0.1, "c1": 0.0, "tan1": 0.0}],
        "source": [{"id": 4, "node": 1, "u_ref": 1.0}],
    },
}


def read(source: str | Path, tmp_path: Path) -> ImportedGrid:
    return read_grid(source, tmp_path / "cache", read_grid_folder)


@pytest.mark.spec("GRID-01")
@pytest.mark.parametrize("name", ["feeder.m", "feeder.txt", "feeder.json"])
def test_a_matpower_case_is_known_under_any_name(name: str, tmp_path: Path) -> None:
    shutil.copy(CASE, tmp_path / name)
    found = read(tmp_path / name, tmp_path)
    assert len(found.tables.branches) == 37 and found.profiles is None
    # The source's own bus belongs to nobody's perimeter; the rest of the feeder is one.
    assert {bus.perimeter for bus in found.tables.buses} == {"", "F01"}
    assert [bus.bus for bus in found.tables.buses if not bus.perimeter] == ["1"]


@pytest.mark.spec("GRID-01")
@pytest.mark.parametrize("indent", [None, 2])
def test_json_is_told_apart_by_what_stands_in_it(indent: int | None, tmp_path: Path) -> None:
    import pandapower as pp

    (tmp_path / "a.json").write_text(json.dumps(SMALL, indent=indent), encoding="utf-8")
    found = read(tmp_path / "a.json", tmp_path)
    assert [line.line for line in found.tables.lines] == ["line 3"]
    # Node 5 hangs nowhere and carries nothing: it is left out, and told.
    assert "not_fed" in {finding.code for finding in found.findings}
    assert check(found.tables) == ()
    net = pp.create_empty_network()
    buses = [pp.create_bus(net, 20.0, name=name) for name in ("a", "b")]
    pp.create_ext_grid(net, buses[0], name="grid")
    pp.create_line_from_parameters(net, *buses, 1.0, 0.1, 0.1, 10.0, 0.2, name="cable")
    pp.create_load(net, buses[1], 1.0, name="town")
    pp.to_json(net, str(tmp_path / "b.json"))
    assert [load.p_mw for load in read(tmp_path / "b.json", tmp_path).tables.loads] == [1.0]


@pytest.mark.spec("GRID-01")
def test_a_simbench_code_stays_a_code_and_brings_its_profiles(
    urban: SimbenchGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coflex.adapters.grids.simbench.load_grid", lambda code, cache: urban)
    found = read("1-MV-urban--0-sw", tmp_path)
    assert found.tables == urban.grid and found.profiles is urban.profiles


@pytest.mark.spec("GRID-01")
def test_a_folder_of_tables_reads_with_its_own_perimeters(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "grid", radial())
    found = read(folder, tmp_path)
    assert found.tables == radial()
    assert read(str(folder), tmp_path).tables == radial()


@pytest.mark.spec("GRID-01")
def test_every_golden_case_makes_a_sound_network(tmp_path: Path) -> None:
    cases = sorted(GOLDEN.glob("*/*.m"))
    assert len(cases) >= 3
    for case in cases:
        assert build(read(case, tmp_path).tables).n > 0


@pytest.mark.spec("GRID-01")
def test_what_no_reader_knows_is_refused_with_what_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "net.p").write_bytes(b"\x80\x04pandapowerNet")
    (tmp_path / "case.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    (tmp_path / "list.json").write_text("[1, 2]", encoding="utf-8")
    (tmp_path / "empty").write_text("", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    for name, word in {
        "net.p": "to_json",
        "case.mat": "savecase",
        "list.json": "MATPOWER",
        "empty": "CGMES",
        "folder": "buses.csv",
        "other.zip": "CGMES",
    }.items():
        with pytest.raises(Refused) as refused:
            read(tmp_path / name, tmp_path)
        (finding,) = refused.value.findings
        assert finding.code == "unknown_format" and word in finding.message


@pytest.mark.spec("GRID-01")
def test_a_name_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        read("no/such/grid.m", tmp_path)
    assert [(f.place, f.code) for f in refused.value.findings] == [("no/such/grid.m", "missing_file")]
