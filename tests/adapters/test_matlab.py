"""The evaluator of MATLAB data files against what MATLAB's documentation says of its grammar."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.adapters.grids.matlab import CONSTANTS, Cell, evaluate

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: x + 0.0)


def value(code: str) -> list[list[float]]:
    """What `x` is after the code."""
    outcome, findings = evaluate(code, "file.m")
    assert findings == ()
    return np.asarray(outcome.values["x"], dtype=float).tolist()  # type: ignore[no-any-return]


@pytest.mark.spec("GRID-01")
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("x = [1 -2]", [[1, -2]]),
        ("x = [1 - 2]", [[-1]]),
        ("x = [1 -2 + 3, 4]", [[1, 1, 4]]),
        ("x = [1, 2; 3 4\n 5 6];", [[1, 2], [3, 4], [5, 6]]),
        ("x = [1 2 ... the row goes on\n 3]", [[1, 2, 3]]),
        ("x = [ % a heading\n 1 2 % one\n\n 3 4 ];", [[1, 2], [3, 4]]),
        ("%{\nx = 5\n%}\nx = 7", [[7]]),
        ("s = 'it''s 100 % of ... it'; x = 1", [[1]]),
        ("a = [1 2; 3 4]; x = a'", [[1, 3], [2, 4]]),
        ("a = [1 2]; x = [a' a']", [[1, 1], [2, 2]]),
        ("a = [1 2; 3 4]; x = a * a", [[7, 10], [15, 22]]),
        ("a = [1 2; 3 4]; x = a .* a", [[1, 4], [9, 16]]),
        ("x = -2^2", [[-4]]),
        ("x = 2^-1", [[0.5]]),
        ("x = 2^3^2", [[64]]),
        ("x = 1 / 2 / 2", [[0.25]]),
        ("x = 1:3", [[1, 2, 3]]),
        ("x = 5:-2:0", [[5, 3, 1]]),
        ("x = 3:1", [[]]),
        ("a = [1 2 3; 4 5 6]; x = a(2, end)", [[6]]),
        ("a = [1 2 3; 4 5 6]; x = a(:, [3 1])", [[3, 1], [6, 4]]),
        ("a = [1 2 3; 4 5 6]; x = a(3)", [[2]]),
        ("a = [1 2 3; 4 5 6]; x = a(a > 4)", [[5], [6]]),
        ("a = [1 2 3; 4 5 6]; a(:, 2) = []; x = a", [[1, 3], [4, 6]]),
        ("a = [1 2]; a(2, 3) = 9; x = a", [[1, 2, 0], [0, 0, 9]]),
        ("a = [1 2; 3 4]; k = find(a(:, 1) == 3); a(k, :) = a(k, :) / 2; x = a", [[1, 2], [1.5, 2]]),
        ("a = [1 Inf -Inf]; x = a(~isinf(a))", [[1]]),
        ("x = sum([1 2; 3 4])", [[4, 6]]),
        ("x = sum([1 2 3])", [[6]]),
        ("x = max([1 5; 3 4], 3.5)", [[3.5, 5], [3.5, 4]]),
        ("x = sin(acos(0.6))", [[0.8]]),
        ("x = 1d3", [[1000]]),
        ("x = round(-2.5)", [[-3]]),
        ("q = 0;\nif q\n x = missing(1);\nelseif 1 > 0 && ~q\n x = 2;\nelse\n x = 3;\nend", [[2]]),
        ("mpc.bus = [1 2];\nmpc.bus(:, 2) = 5; x = mpc.bus", [[1, 5]]),
        ("define_constants; x = [PD QMIN RATE_A COST]", [[3, 5, 6, 5]]),
        ("[A, ~, C] = idx_bus; x = [A C]", [[1, 3]]),
        ("sin = [4 5]; x = sin(2)", [[5]]),
    ],
)
def test_expressions_have_the_value_that_matlab_gives_them(code: str, expected: list[list[float]]) -> None:
    assert value(code) == pytest.approx(np.array(expected)) if expected != [[]] else value(code) == [[]]


@pytest.mark.spec("GRID-01")
@pytest.mark.parametrize(
    ("code", "line", "code_of_finding"),
    [
        ("a = 1;\nfor k = 1:3\nend", 2, "matlab_not_read"),
        ("x = system('rm')", 1, "matlab_not_read"),
        ("\n\nmpc = loadcase('case9');", 3, "matlab_not_read"),
        ("x = eval('1')", 1, "matlab_not_read"),
        ("mpc = scale_load(2, mpc);", 1, "matlab_not_read"),
        ("a = [1 2];\nb = a\\a;", 2, "matlab_not_read"),
        ("a = [1 2];\nb = a / a;", 2, "matlab_not_read"),
        ("a = {1, 2};\nb = a{1};", 2, "matlab_not_read"),
        ("[a, b] = size([1 2]);", 1, "matlab_not_read"),
        ("x = @sin;", 1, "not_matlab"),
        ("disp(3)", 1, "matlab_not_read"),
        ("clear", 1, "matlab_not_read"),
        ("function f\nx = 1;", 1, "matlab_not_read"),
        ("function mpc = f(scale)\nx = 1;", 1, "matlab_not_read"),
        ("x = [1 2\n 3 4 5\n];", 2, "uneven_rows"),
        ("x = [1 2\n 3 (4)+1 5\n];", 1, "uneven_rows"),
        ("x = [1, , 2];", 1, "not_matlab"),
        ("x = [1 2", 1, "not_matlab"),
        ("x = 'open", 1, "not_matlab"),
        ("x = 3 4", 1, "not_matlab"),
        ("x = ", 1, "not_matlab"),
        ("a = [1 2];\nx = a(3);", 2, "matlab_error"),
        ("a = [1 2];\nx = a(1.5);", 2, "matlab_error"),
        ("a = [1 2];\na(1, :) = [1 2 3];", 2, "matlab_error"),
        ("x = [1 2] + [1 2 3];", 1, "matlab_error"),
        ("x = acos(2);", 1, "matlab_error"),
        ("x = (-8)^(1/3);", 1, "matlab_error"),
        ("x = zeros(1e9);", 1, "matlab_error"),
        ("x = 1:1e12;", 1, "matlab_error"),
        ("if 1\nx = 2;", 1, "not_matlab"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(code: str, line: int, code_of_finding: str) -> None:
    _, findings = evaluate(code, "file.m")
    assert [(finding.place, finding.code) for finding in findings] == [(f"file.m, line {line}", code_of_finding)]


@pytest.mark.spec("GRID-01")
def test_several_faults_are_named_at_once_and_what_hangs_on_them_is_silent() -> None:
    code = "a = nothing(1);\nb = a + 1;\nc = b * 2;\nd = [1 2](5);\ne = 3;\nf = e(2);"
    outcome, findings = evaluate(code, "file.m")
    assert [finding.place for finding in findings] == ["file.m, line 1", "file.m, line 4", "file.m, line 6"]
    assert set(outcome.values) == {"e"}


@pytest.mark.spec("GRID-01")
@given(
    st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=1, max_size=5), st.sampled_from([" ", ",", ", ", "\t"])
)
def test_a_matrix_reads_the_same_as_plain_numbers_and_as_expressions(rows: list[list[float]], between: str) -> None:
    plain = ";\n".join(between.join(repr(x) for x in row) for row in rows)
    # Brackets around one value send the whole matrix through the grammar.
    summed = ";\n".join(between.join(f"({x!r})" for x in row) for row in rows)
    assert value(f"x = [{plain}];") == value(f"x = [{summed}]") == rows


def test_names_of_columns_are_those_of_the_manual() -> None:
    names = {name: place for pairs in CONSTANTS.values() for name, place in pairs}
    for name, place in (("BASE_KV", 10), ("VMIN", 13), ("TAP", 9), ("ANGMAX", 13), ("PF", 14), ("MU_ST", 19)):
        assert names[name] == place
    for name, place in (("GEN_STATUS", 8), ("PMIN", 10), ("PC1", 11), ("APF", 21), ("MU_QMIN", 25), ("NCOST", 4)):
        assert names[name] == place


def test_cells_keep_their_texts() -> None:
    outcome, findings = evaluate("c = {\n 'a; b', 'it''s';\n \"two\"\n};", "file.m")
    assert findings == () and outcome.values["c"] == Cell(("a; b", "it's", "two"))
