"""A small, safe evaluator of MATLAB data files: arithmetic on matrices, no files, no system, no loops.

Values are matrices of numbers (2-D, as in MATLAB, where a number is a matrix of one), text, and cells. MATPOWER's
names of columns (`idx_bus`, `idx_brch`, `idx_gen`, `idx_cost`, `define_constants`) are known.
Source: R. D. Zimmerman, C. E. Murillo-Sánchez, "MATPOWER User's Manual", appendix B, DOI 10.5281/zenodo.3251118.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from coflex.adapters.grids.matlab_syntax import MatlabFault, Node, Statement, parse
from coflex.domain.errors import Finding

LARGEST = 50_000_000  # numbers a matrix may hold

_BUS = (
    "PQ PV REF NONE BUS_I BUS_TYPE PD QD GS BS BUS_AREA VM VA BASE_KV ZONE VMAX VMIN LAM_P LAM_Q MU_VMAX MU_VMIN",
    (1, 2, 3, 4, *range(1, 18)),
)
_BRANCH = (
    "F_BUS T_BUS BR_R BR_X BR_B RATE_A RATE_B RATE_C TAP SHIFT BR_STATUS PF QF PT QT MU_SF MU_ST"
    " ANGMIN ANGMAX MU_ANGMIN MU_ANGMAX",
    (*range(1, 12), *range(14, 20), 12, 13, 20, 21),
)
_GEN = (
    "GEN_BUS PG QG QMAX QMIN VG MBASE GEN_STATUS PMAX PMIN MU_PMAX MU_PMIN MU_QMAX MU_QMIN PC1 PC2 QC1MIN QC1MAX"
    " QC2MIN QC2MAX RAMP_AGC RAMP_10 RAMP_30 RAMP_Q APF",
    (*range(1, 11), 22, 23, 24, 25, *range(11, 22)),
)
_COST = ("PW_LINEAR POLYNOMIAL MODEL STARTUP SHUTDOWN NCOST COST", (1, 2, 1, 2, 3, 4, 5))
CONSTANTS: Mapping[str, tuple[tuple[str, int], ...]] = {
    name: tuple(zip(words.split(), places, strict=True))
    for name, (words, places) in (("idx_bus", _BUS), ("idx_brch", _BRANCH), ("idx_gen", _GEN), ("idx_cost", _COST))
}


@dataclass(frozen=True)
class Cell:
    """A cell array, its values row by row."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Outcome:
    """What a file gives out: names of its output variables (("mpc",), or several in the old form of a case), and the
    values of all variables and fields by dotted path."""

    outputs: tuple[str, ...]
    values: Mapping[str, Any]


def evaluate(text: str, file: str) -> tuple[Outcome, tuple[Finding, ...]]:
    """Run a data file. Never raises for what stands in it: every statement that cannot be read is a finding with its
    line, and what would have depended on it is missing from the values."""
    statements, faults = parse(text)
    run = _Run()
    if not faults:
        run.all(statements)
    findings = [Finding(f"{file}, line {fault.line}", fault.code, fault.message) for fault in (*faults, *run.faults)]
    return Outcome(run.outputs, run.values), tuple(findings)


class _Return(Exception):
    """The file says that it is done."""


class _Missing(Exception):
    """A value that an earlier fault has left out."""


class _Run:
    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.outputs: tuple[str, ...] = ()
        self.faults: list[MatlabFault] = []
        self._lost: set[str] = set()

    def all(self, statements: Iterable[Statement]) -> None:
        try:
            self._block(statements)
        except _Return:
            return

    def _block(self, statements: Iterable[Statement]) -> None:
        for statement in statements:
            try:
                self._one(statement)
            except (MatlabFault, _Missing) as fault:
                self.faults.extend([fault] if isinstance(fault, MatlabFault) else [])
                if statement.kind == "assign":
                    self._lost.update(target.parts[0] for target in statement.parts[0] if isinstance(target, Node))

    def _one(self, statement: Statement) -> None:
        if statement.kind == "function":
            if self.outputs:  # functions of the file's own follow
                raise _Return
            self.outputs = tuple(str(name) for name in statement.parts)
        elif statement.kind == "return":
            raise _Return
        elif statement.kind == "command":
            if statement.parts[0] != "define_constants":
                message = f"'{statement.parts[0]}' is no statement that can be read; write its result as numbers."
                raise MatlabFault(statement.line, "matlab_not_read", message)
            for names in CONSTANTS.values():
                self.values.update((name, _scalar(place)) for name, place in names)
        elif statement.kind == "if":
            for condition, body in statement.parts:
                if condition is None or _true(self._value(condition), condition.line):
                    self._block(body)
                    return
        else:
            self._assign(statement)

    # ---- assignments

    def _assign(self, statement: Statement) -> None:
        targets, expression = statement.parts
        if len(targets) > 1:
            self._unpack(targets, expression)
            return
        target, value = targets[0], self._value(expression)
        if target.kind == "name":
            self._lost.discard(target.parts[0])
            self.values[target.parts[0]] = value
            return
        path, arguments = target.parts
        old = self._named(path, target.line)
        if not isinstance(old, np.ndarray) or not isinstance(value, np.ndarray):
            message = f"Parts of '{path}' are set, and it or they are no numbers; write the whole as numbers."
            raise MatlabFault(target.line, "matlab_not_read", message)
        # MATLAB knows only the literal [] as the order to delete.
        deletes = expression.kind in ("plain", "matrix") and not value.size
        self.values[path] = self._with_part(old, arguments, value, deletes, target.line)

    def _unpack(self, targets: tuple[Any, ...], expression: Node) -> None:
        name = expression.parts[0] if expression.kind in ("name", "call") else ""
        if name not in CONSTANTS or expression.kind == "call":
            message = "Several names are set at once; that is read for idx_bus, idx_brch, idx_gen and idx_cost only."
            raise MatlabFault(expression.line, "matlab_not_read", message)
        places = CONSTANTS[name]
        if len(targets) > len(places):
            message = f"{name} has {len(places)} values for {len(targets)} names; remove some."
            raise MatlabFault(expression.line, "matlab_error", message)
        for target, (_, place) in zip(targets, places, strict=False):
            if isinstance(target, Node):
                self.values[target.parts[0]] = _scalar(place)

    def _with_part(self, old: Any, arguments: tuple[Node, ...], value: Any, deletes: bool, line: int) -> Any:
        where = self._where(old, arguments, line, grow=True)
        if len(where) == 1:
            if where[0].size and where[0].max() >= old.size:
                raise _outside(line)
            flat = old.flatten(order="F")
            rows = where
        else:
            rows = where
            shape = tuple(max([n, *(i + 1)]) for n, i in zip(old.shape, rows, strict=True))
            flat = np.zeros(shape, dtype=np.float64)
            flat[: old.shape[0], : old.shape[1]] = old
        if deletes:
            if len(where) == 1 or flat.shape != old.shape:
                raise MatlabFault(line, "matlab_not_read", "Only whole rows or columns of a matrix can be taken out.")
            axis = 0 if arguments[1].kind == "all" else 1
            if arguments[1 - axis].kind != "all":
                raise MatlabFault(line, "matlab_not_read", "Only whole rows or columns of a matrix can be taken out.")
            return np.delete(old, rows[axis], axis=axis)
        flat = flat.astype(np.float64)
        fits = (rows[0].size,) if len(rows) == 1 else (rows[0].size, rows[1].size)
        given = value.flatten(order="F") if len(rows) == 1 else value
        if value.size != 1 and given.shape != fits:
            message = f"A matrix of {_shape(value)} does not fit {' x '.join(map(str, fits))} places; correct one."
            raise MatlabFault(line, "matlab_error", message)
        flat[rows[0] if len(rows) == 1 else np.ix_(*rows)] = value[0, 0] if value.size == 1 else given
        return flat.reshape(old.shape, order="F") if len(rows) == 1 else flat

    def _where(self, matrix: Any, arguments: tuple[Node, ...], line: int, grow: bool = False) -> list[Any]:
        """Positions from 0 that the arguments of an index name: one list, or one for rows and one for columns."""
        if len(arguments) not in (1, 2):
            raise MatlabFault(line, "matlab_not_read", "Matrices have rows and columns; give one or two indices.")
        sizes = matrix.shape if len(arguments) == 2 else (matrix.size,)
        where = []
        for size, argument in zip(sizes, arguments, strict=True):
            if argument.kind == "all":
                where.append(np.arange(size))
                continue
            index = self._value(argument, size)
            if not isinstance(index, np.ndarray):
                raise MatlabFault(line, "matlab_not_read", "An index is text or a cell; write whole numbers.")
            places = np.flatnonzero(index.flatten(order="F")) if index.dtype == bool else index.flatten(order="F") - 1
            if (places != np.floor(places)).any() or (places < 0).any() or (places.size and places.max() >= LARGEST):
                raise MatlabFault(line, "matlab_error", "An index is no whole number from 1; correct it.")
            where.append(places.astype(np.int64))
            if not grow and places.size and places.max() >= size:
                raise _outside(line)
        return where

    # ---- values

    def _named(self, path: str, line: int) -> Any:
        if path in self._lost:
            raise _Missing
        if path in self.values:
            return self.values[path]
        if any(name.startswith(f"{path}.") for name in self.values):
            raise MatlabFault(line, "matlab_not_read", f"'{path}' is used as a whole; name one of its fields.")
        message = f"'{path}' is neither set above nor a function that can be read; write its value as numbers."
        raise MatlabFault(line, "matlab_not_read", message)

    def _value(self, node: Node, size: int | None = None) -> Any:
        """The value of an expression. `size`: what `end` stands for inside an index."""
        match node.kind:
            case "number":
                return _scalar(node.parts[0])
            case "text" | "plain":
                return node.parts[0]
            case "end" if size is not None:
                return _scalar(size)
            case "name":
                path = node.parts[0]
                if path not in self.values and path not in self._lost and path in _FUNCTIONS:
                    return self._call(path, (), node.line)
                return self._named(path, node.line)
            case "call":
                return self._call_or_part(node, size)
            case "index":
                matrix = self._matrix(node.parts[0], size)
                return _part(matrix, self._where(matrix, node.parts[1], node.line))
            case "cell":
                return Cell(tuple(self._value(item) for row in node.parts[0] for item in row))
            case "matrix":
                return self._joined(node)
            case "transpose":
                return self._matrix(node.parts[0], size).T
            case "range":
                first, step, last = (self._number(part, size) for part in node.parts)
                return _range(first, step, last, node.line)
            case "unary":
                return _unary(node.parts[0], self._matrix(node.parts[1], size))
            case "binary":
                return self._binary(node, size)
        raise MatlabFault(node.line, "not_matlab", "':' and 'end' stand only inside an index.")

    def _matrix(self, node: Node, size: int | None = None) -> Any:
        value = self._value(node, size)
        if not isinstance(value, np.ndarray):
            raise MatlabFault(node.line, "matlab_not_read", "Text or cells stand where numbers are needed.")
        return value

    def _number(self, node: Node, size: int | None) -> float:
        value = self._matrix(node, size)
        if value.size != 1:
            raise MatlabFault(
                node.line, "matlab_error", f"A matrix of {_shape(value)} stands where one number belongs."
            )
        return float(value[0, 0])

    def _joined(self, node: Node) -> Any:
        rows = [[self._matrix(item) for item in row] for row in node.parts[0]]
        # MATLAB passes over empty matrices when it joins.
        rows = [kept for row in rows if (kept := [item for item in row if item.size])]
        try:
            return np.concatenate([np.concatenate(row, axis=1) for row in rows]) if rows else np.zeros((0, 0))
        except ValueError:
            message = "The parts of the matrix do not fit together; check that all rows have as many values."
            raise MatlabFault(node.line, "uneven_rows", message) from None

    def _call_or_part(self, node: Node, size: int | None) -> Any:
        path, arguments = node.parts
        if path in _FUNCTIONS and path not in self.values and path not in self._lost:
            return self._call(path, tuple(self._value(argument, size) for argument in arguments), node.line)
        matrix = self._named(path, node.line)
        if not isinstance(matrix, np.ndarray):
            raise MatlabFault(node.line, "matlab_not_read", f"'{path}' holds no numbers; its parts are not read.")
        return _part(matrix, self._where(matrix, arguments, node.line))

    def _call(self, name: str, arguments: tuple[Any, ...], line: int) -> Any:
        fewest, most, function = _FUNCTIONS[name]
        if not fewest <= len(arguments) <= most:
            raise MatlabFault(line, "matlab_not_read", f"'{name}' is read with {fewest} to {most} arguments.")
        if name not in ("numel", "length", "isempty") and not all(isinstance(item, np.ndarray) for item in arguments):
            raise MatlabFault(line, "matlab_not_read", f"'{name}' is read for numbers only.")
        try:
            with np.errstate(all="ignore"):
                value = function(*arguments)
        except ValueError as error:
            raise MatlabFault(line, "matlab_error", f"'{name}' cannot be computed here ({error}).") from None
        known = not any(np.isnan(item).any() for item in arguments if isinstance(item, np.ndarray))
        if name not in ("NaN", "nan") and known and np.isnan(value).any():
            raise MatlabFault(line, "matlab_error", f"'{name}' has no real value here; check its argument.")
        return value

    def _binary(self, node: Node, size: int | None) -> Any:
        operator, left, right = node.parts
        if operator in ("&&", "||"):
            first = _true(self._value(left, size), node.line)
            if first == (operator == "||"):
                return np.array([[first]])
            return np.array([[_true(self._value(right, size), node.line)]])
        a, b = self._matrix(left, size), self._matrix(right, size)
        single = a.size == 1 or b.size == 1
        if operator == "*" and not single:
            if a.shape[1] != b.shape[0]:
                raise _unequal(a, b, node.line)
            return a.astype(np.float64) @ b.astype(np.float64)
        if (operator == "/" and b.size != 1) or (operator == "^" and a.size * b.size != 1) or operator == "\\":
            message = f"'{operator}' between matrices is not read; '.{operator}' works value by value."
            raise MatlabFault(node.line, "matlab_not_read", message)
        if operator in ("&", "|"):
            a, b = a.astype(bool), b.astype(bool)
        elif a.dtype == bool or b.dtype == bool:
            a, b = a.astype(np.float64), b.astype(np.float64)
        try:
            with np.errstate(all="ignore"):
                value = _OPERATORS[operator](a, b)
        except ValueError:
            raise _unequal(a, b, node.line) from None
        if operator in ("^", ".^") and np.isnan(value).any() and not (np.isnan(a).any() or np.isnan(b).any()):
            raise MatlabFault(node.line, "matlab_error", "A root of a negative number is no real number; correct it.")
        return value


def _scalar(value: float) -> Any:
    return np.array([[float(value)]])


def _true(value: Any, line: int) -> bool:
    if not isinstance(value, np.ndarray):
        raise MatlabFault(line, "matlab_not_read", "The condition is no number; write a comparison of numbers.")
    return bool(value.size and value.all())


def _part(matrix: Any, where: list[Any]) -> Any:
    if len(where) == 2:
        return matrix[np.ix_(*where)]
    picked = matrix.flatten(order="F")[where[0]]
    return picked.reshape(1, -1) if matrix.shape[0] == 1 and matrix.shape[1] != 1 else picked.reshape(-1, 1)


def _range(first: float, step: float, last: float, line: int) -> Any:
    count = np.floor((last - first) / step + 1e-10) + 1 if step else 0
    if not count < LARGEST:
        raise MatlabFault(line, "matlab_error", "The range has no end; write finite bounds.")
    return (first + step * np.arange(max(0, int(count)))).reshape(1, -1)


def _unary(operator: str, value: Any) -> Any:
    if operator == "~":
        return ~value.astype(bool)
    return -value.astype(np.float64) if operator == "-" else value.astype(np.float64)


def _shape(value: Any) -> str:
    return f"{value.shape[0]} x {value.shape[1]}"


def _outside(line: int) -> MatlabFault:
    return MatlabFault(line, "matlab_error", "An index lies beyond the matrix; correct it.")


def _unequal(a: Any, b: Any, line: int) -> MatlabFault:
    return MatlabFault(line, "matlab_error", f"Matrices of {_shape(a)} and {_shape(b)} do not fit; correct one.")


_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    ".*": np.multiply,
    "/": np.divide,
    "./": np.divide,
    "^": np.power,
    ".^": np.power,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "~=": np.not_equal,
    "!=": np.not_equal,
    "&": np.logical_and,
    "|": np.logical_or,
}


def _along(function: Callable[..., Any]) -> Callable[[Any], Any]:
    """A function over the columns of a matrix, or over all values of a row, as MATLAB has it."""

    def reduce(x: Any) -> Any:
        return np.asarray(function(x, axis=1 if x.shape[0] == 1 else 0, keepdims=True))

    return reduce


def _extreme(reduce: Callable[..., Any], pair: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def extreme(x: Any, y: Any = None) -> Any:
        return _along(reduce)(x) if y is None else pair(x, y)

    return extreme


def _filled(value: float) -> Callable[..., Any]:
    def filled(*sizes: Any) -> Any:
        counts = [int(n) for size in sizes for n in np.asarray(size).ravel()]
        shape = (counts * 2)[:2] if counts else [1, 1]
        if len(counts) > 2 or min(shape) < 0 or shape[0] * shape[1] > LARGEST:
            raise ValueError("the size cannot be")
        return np.full(shape, value)

    return filled


def _size(x: Any, axis: Any = None) -> Any:
    return np.array([x.shape], dtype=np.float64) if axis is None else _scalar(x.shape[int(axis[0, 0]) - 1])


def _find(x: Any) -> Any:
    places = np.flatnonzero(x.flatten(order="F")) + 1.0
    return places.reshape(1, -1) if x.shape[0] == 1 and x.shape[1] != 1 else places.reshape(-1, 1)


def _count(x: Any) -> int:
    return x.size if isinstance(x, np.ndarray) else len(x.values if isinstance(x, Cell) else x)


def _length(x: Any) -> Any:
    return _scalar((max(x.shape) if x.size else 0) if isinstance(x, np.ndarray) else _count(x))


def _round(x: Any) -> Any:
    """Halves away from zero."""
    return np.sign(x) * np.floor(np.abs(x) + 0.5)


# Name: fewest and most arguments, and what it computes.
_FUNCTIONS: Mapping[str, tuple[int, int, Callable[..., Any]]] = {
    **{name: (1, 1, getattr(np, name)) for name in ("abs", "cos", "exp", "floor", "ceil", "log10", "sin", "sqrt")},
    **{name: (1, 1, getattr(np, name)) for name in ("tan", "log", "sign", "isnan", "isinf", "deg2rad", "rad2deg")},
    **{name: (1, 1, getattr(np, f"arc{name[1:]}")) for name in ("asin", "acos", "atan")},
    **{name: (1, 1, _along(getattr(np, name))) for name in ("sum", "any", "all", "prod")},
    "max": (1, 2, _extreme(np.max, np.maximum)),
    "min": (1, 2, _extreme(np.min, np.minimum)),
    "round": (1, 1, _round),
    "find": (1, 1, _find),
    "size": (1, 2, _size),
    "length": (1, 1, _length),
    "numel": (1, 1, lambda x: _scalar(_count(x))),
    "isempty": (1, 1, lambda x: np.array([[_count(x) == 0]])),
    "zeros": (0, 2, _filled(0.0)),
    "ones": (0, 2, _filled(1.0)),
    "true": (0, 0, lambda: np.array([[True]])),
    "false": (0, 0, lambda: np.array([[False]])),
    "pi": (0, 0, lambda: _scalar(np.pi)),
    "eps": (0, 0, lambda: _scalar(np.finfo(float).eps)),
    **{name: (0, 0, lambda: _scalar(np.inf)) for name in ("Inf", "inf")},
    **{name: (0, 0, lambda: _scalar(np.nan)) for name in ("NaN", "nan")},
}
