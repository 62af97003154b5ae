"""The part of MATLAB's grammar that data files use: assignments, matrices, cells, calls, and `if`.

Source: The MathWorks, "MATLAB Programming Fundamentals" (syntax of matrices, comments and continuation lines).
What lies outside is refused with its line; nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


class MatlabFault(Exception):
    """A place at which a file cannot be read on. `code` for machines, the message for people."""

    def __init__(self, line: int, code: str, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Node:
    """An expression. `kind` says what `parts` hold; `line` counts from 1.

    number (value), text (string), name (dotted path), call (path, arguments), index (expression, arguments), matrix and
    cell (rows of expressions), plain (a matrix of numbers, ready), unary (operator, x), binary (operator, x, y),
    transpose (x), range (from, step, to), all and end (of an index).
    """

    kind: str
    line: int
    parts: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Statement:
    """`kind`: function (names given out), assign (targets, expression), command (name), if (branches), return."""

    kind: str
    line: int
    parts: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class _Token:
    """`value`: the signs of a number, name or operator, else empty. `content`: of text, and of a matrix of numbers."""

    kind: str  # number, name, text, operator, newline, plain, fault, "" at the end
    value: str
    line: int
    spaced: bool  # white space stands before it
    content: Any = None


_TOKEN = re.compile(
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z]\w*)"
    r"|(?P<operator>\.\*|\./|\.\^|\.'|==|~=|!=|<=|>=|&&|\|\||[-+*/^()\[\]{},;:=<>&|~!.@\\])"
    r"|(?P<newline>\n)"
)
# A line that goes on: the break counts as a line but separates nothing.
_JOINED = "\f"
_PLAIN = re.compile(r"\[([\s0-9eE.,;+\-INFinfNa]*)\]")
_KEYWORDS = frozenset(
    {"for", "while", "switch", "try", "parfor", "global", "persistent", "break", "continue", "classdef", "case"}
)
_PRECEDENCE = (
    ("||",),
    ("&&",),
    ("|",),
    ("&",),
    ("<", "<=", ">", ">=", "==", "~=", "!="),
    (":",),
    ("+", "-"),
    ("*", "/", ".*", "./", "\\"),
)


def parse(text: str) -> tuple[tuple[Statement, ...], tuple[MatlabFault, ...]]:
    """The statements of a file, and every fault; a statement with a fault is left out."""
    try:
        tokens = list(_tokens(_bare(text)))
    except MatlabFault as fault:
        return (), (fault,)
    return _Parser(tokens).program()


def _bare(text: str) -> str:
    """The text without comments; continued lines joined. Every line keeps its number."""
    lines, block = [], 0
    for line in text.replace("\r\n", "\n").replace("\r", "\n").replace(_JOINED, " ").split("\n"):
        mark = line.strip()
        if mark == "%{" or (block and mark == "%}"):
            block += 1 if mark == "%{" else -1
            lines.append("\n")
        else:
            lines.append("\n" if block else _uncommented(line))
    return "".join(lines)


def _uncommented(line: str) -> str:
    stops = [i for i in (line.find("%"), line.find("...")) if i >= 0]
    if not stops:
        return line + "\n"
    quotes = [i for i in (line.find("'"), line.find('"')) if i >= 0]
    stop: int | None = min(stops)
    if quotes and min(quotes) < min(stops):
        stop = _outside_text(line)
    if stop is None:
        return line + "\n"
    return line[:stop] + (_JOINED if line.startswith("...", stop) else "\n")


def _outside_text(line: str) -> int | None:
    """Where a comment or a continuation begins outside quoted text."""
    quote, i = "", 0
    while i < len(line):
        sign = line[i]
        if quote and line.startswith(quote * 2, i):
            i += 1  # a quote within text is written twice
        elif quote:
            quote = "" if sign == quote else quote
        elif sign == "%" or line.startswith("...", i):
            return i
        elif sign == '"' or (sign == "'" and not _transposes(line, i)):
            quote = sign
        i += 1
    return None


def _transposes(text: str, place: int) -> bool:
    """Whether a single quote turns the operand before it instead of opening text."""
    return place > 0 and (text[place - 1].isalnum() or text[place - 1] in "_)]}'.")


def _tokens(text: str) -> Iterator[_Token]:
    place, line, spaced = 0, 1, False
    while place < len(text):
        sign = text[place]
        if sign in " \t\f":
            place, line, spaced = place + 1, line + (sign == _JOINED), True
            continue
        plain = _PLAIN.match(text, place) if sign == "[" else None
        rows = _numbers(plain[1], line) if plain else None
        if plain and rows is not None:
            token, end = (
                _Token("fault" if isinstance(rows, MatlabFault) else "plain", "", line, spaced, rows),
                plain.end(),
            )
        elif sign in "'\"" and not (sign == "'" and _transposes(text, place)):
            token, end = _quoted(text, place, line, spaced)
        elif sign == "'":
            token, end = _Token("operator", "'", line, spaced), place + 1
        else:
            match = _TOKEN.match(text, place)
            if not match:
                raise MatlabFault(line, "not_matlab", f"The sign {sign!r} has no meaning here; take it out.")
            token, end = _Token(str(match.lastgroup), match[0], line, spaced), match.end()
        yield token
        line += text.count("\n", place, end) + text.count(_JOINED, place, end)
        place, spaced = end, False
    yield _Token("newline", "", line, False)
    yield _Token("", "", line, False)


def _quoted(text: str, place: int, line: int, spaced: bool) -> tuple[_Token, int]:
    quote, end = text[place], place + 1
    while True:
        stop = text.find(quote, end)
        if stop < 0 or "\n" in text[end:stop]:
            raise MatlabFault(line, "not_matlab", "The quoted text does not end on its line; close the quote.")
        if not text.startswith(quote, stop + 1):
            return _Token("text", "", line, spaced, text[place + 1 : stop].replace(quote * 2, quote)), stop + 1
        end = stop + 2


def _numbers(body: str, line: int) -> Any:
    """A matrix of plain numbers; a fault where its rows differ in length; None where they hold anything else (a sum,
    say), which the grammar reads."""
    if re.search(r",\s*,|,\s*[;\n]|[;\n]\s*,|^\s*,|,\s*$", body):
        return None
    rows: list[list[str]] = []
    lines: list[int] = []
    for part in body.split("\n"):
        for row in part.split(";"):
            cells = row.replace(",", " ").split()
            if cells:
                rows.append(cells)
                lines.append(line)
            line += row.count(_JOINED)
        line += 1
    uneven = [number for row, number in zip(rows, lines, strict=True) if len(row) != len(rows[0])]
    if uneven:
        more = f" So have {len(uneven) - 1} more rows." if len(uneven) > 1 else ""
        message = f"The row has not as many values as the matrix's first row, {len(rows[0])}; add or remove some.{more}"
        return MatlabFault(uneven[0], "uneven_rows", message)
    try:
        return np.array([list(map(float, row)) for row in rows]) if rows else np.zeros((0, 0))
    except ValueError:
        return None


class _Parser:
    """Recursive descent over tokens. `_within`: brackets that stand open; only in matrices does white space count."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._place = 0
        self._within: list[str] = []

    # ---- statements

    def program(self) -> tuple[tuple[Statement, ...], tuple[MatlabFault, ...]]:
        statements, faults = [], []
        while self._token.kind:
            try:
                statement = self._statement()
                if statement is not None:
                    statements.append(statement)
            except MatlabFault as fault:
                faults.append(fault)
                self._skip()
        return tuple(statements), tuple(faults)

    def _skip(self) -> None:
        """To the end of a statement with a fault, brackets that stand open included."""
        depth, self._within = len(self._within), []
        while self._token.kind and (depth > 0 or self._token.kind != "newline"):
            if self._token.kind == "operator":
                depth += (self._token.value in "([{") - (self._token.value in ")]}")
            self._place += 1

    def _statement(self) -> Statement | None:
        token = self._token
        if token.kind == "newline" or token.value in (";", ","):
            self._place += 1
            return None
        if token.value == "end" and token.kind == "name":  # of a function
            self._place += 1
            return None
        if token.kind == "name" and token.value in _KEYWORDS:
            message = f"'{token.value}' is no part of a data file that can be read; write its result as numbers."
            raise MatlabFault(token.line, "matlab_not_read", message)
        if token.value == "function":
            return self._function()
        if token.value == "if" and token.kind == "name":
            return self._if()
        if token.value == "return" and token.kind == "name":
            self._place += 1
            return Statement("return", token.line)
        statement = self._assignment()
        self._finish()
        return statement

    def _function(self) -> Statement:
        line = self._next().line
        names = self._targets() if self._token.value == "[" else [self._name()]
        if self._token.value != "=":
            message = "The function gives nothing out; a data file starts with 'function mpc = name'."
            raise MatlabFault(line, "matlab_not_read", message)
        self._next()
        self._name()
        if self._token.value == "(":
            if self._tokens[self._place + 1].value != ")":
                raise MatlabFault(line, "matlab_not_read", "The function takes arguments; data files take none.")
            self._place += 2
        self._finish()
        return Statement("function", line, tuple(name if isinstance(name, str) else name.parts[0] for name in names))

    def _if(self) -> Statement:
        line = self._token.line
        branches: list[tuple[Node | None, tuple[Statement, ...]]] = []
        while True:
            word = self._next().value
            condition = self._expression() if word in ("if", "elseif") else None
            body = []
            while not (self._token.kind == "name" and self._token.value in ("elseif", "else", "end")):
                if not self._token.kind:
                    raise MatlabFault(line, "not_matlab", "This 'if' has no 'end'; add it.")
                statement = self._statement()
                if statement is not None:
                    body.append(statement)
            branches.append((condition, tuple(body)))
            if self._token.value == "end":
                self._place += 1
                return Statement("if", line, tuple(branches))

    def _assignment(self) -> Statement:
        start, line = self._place, self._token.line
        if self._token.value == "[":
            targets = self._targets()
        else:
            target = self._postfix()
            if target.kind == "name" and (self._token.kind == "newline" or self._token.value in (";", ",")):
                return Statement("command", line, target.parts)
            targets = [target]
        able = all(target.kind in ("name", "call") for target in targets if not isinstance(target, str))
        if self._token.value != "=" or not able:
            shown = self._tokens[start].value
            message = f"The statement at '{shown}' sets nothing; only assignments can be read. Take it out."
            raise MatlabFault(line, "matlab_not_read", message)
        self._next()
        return Statement("assign", line, (tuple(targets), self._expression()))

    def _targets(self) -> list[Any]:
        """Names between brackets, parted by commas or white space; '~' for one that is not wanted."""
        names: list[Any] = []
        self._next()
        while self._token.value != "]":
            if self._token.value == ",":
                self._next()
            elif self._token.value == "~":
                names.append(self._next().value)
            else:
                line = self._token.line
                names.append(Node("name", line, (self._name(),)))
        self._next()
        return names

    def _finish(self) -> None:
        token = self._token
        if token.kind and token.kind != "newline" and token.value not in (";", ","):
            message = f"'{token.value or token.kind}' is not expected here; end the statement before it."
            raise MatlabFault(token.line, "not_matlab", message)
        self._place += 1 if token.kind else 0

    # ---- expressions

    def _expression(self, level: int = 0) -> Node:
        if level == len(_PRECEDENCE):
            return self._unary()
        if ":" in _PRECEDENCE[level]:
            return self._range(level)
        left = self._expression(level + 1)
        while self._is_binary(_PRECEDENCE[level]):
            operator = self._next()
            left = Node("binary", operator.line, (operator.value, left, self._expression(level + 1)))
        return left

    def _range(self, level: int) -> Node:
        first = self._expression(level + 1)
        if self._token.value != ":" or self._token.kind != "operator":
            return first
        line = self._next().line
        second = self._expression(level + 1)
        if self._token.value != ":":
            return Node("range", line, (first, Node("number", line, (1.0,)), second))
        self._next()
        return Node("range", line, (first, second, self._expression(level + 1)))

    def _is_binary(self, operators: tuple[str, ...]) -> bool:
        token = self._token
        if token.kind != "operator" or token.value not in operators:
            return False
        return not (self._in_matrix and token.spaced and self._starts_element())

    def _starts_element(self) -> bool:
        """In a matrix, `1 -2` are two elements and `1 - 2` is one."""
        return self._token.value in ("+", "-") and not self._tokens[self._place + 1].spaced

    def _unary(self) -> Node:
        token = self._token
        if token.kind == "operator" and token.value in ("+", "-", "~", "!"):
            self._next()
            return Node("unary", token.line, ("~" if token.value == "!" else token.value, self._unary()))
        return self._power()

    def _power(self) -> Node:
        base = self._postfix()
        while self._token.kind == "operator" and self._token.value in ("^", ".^"):
            operator = self._next()
            sign = self._next() if self._token.value in ("-", "+") and self._token.kind == "operator" else None
            exponent = self._postfix()
            if sign is not None:
                exponent = Node("unary", sign.line, (sign.value, exponent))
            base = Node("binary", operator.line, (operator.value, base, exponent))
        return base

    def _postfix(self) -> Node:
        node = self._primary()
        while self._token.kind == "operator":
            token = self._token
            if token.value in ("'", ".'") and not (self._in_matrix and token.spaced):
                self._next()
                node = Node("transpose", token.line, (node,))
            elif token.value == "(" and not (self._in_matrix and token.spaced):
                arguments = self._arguments()
                kind = "call" if node.kind == "name" else "index"
                node = Node(kind, token.line, (*node.parts[:1], arguments) if kind == "call" else (node, arguments))
            elif token.value in ("{", ".") and not (self._in_matrix and token.spaced):
                message = "Cells and structures within others are not read; write the value itself."
                raise MatlabFault(token.line, "matlab_not_read", message)
            else:
                return node
        return node

    def _arguments(self) -> tuple[Node, ...]:
        self._next()
        self._within.append("(")
        arguments: list[Node] = []
        while self._token.value != ")" or self._token.kind != "operator":
            token = self._token
            if token.value == ":" and self._tokens[self._place + 1].value in (",", ")"):
                self._next()
                arguments.append(Node("all", token.line))
            else:
                arguments.append(self._expression())
            if self._token.value == ",":
                self._next()
            elif self._token.value != ")":
                raise MatlabFault(self._token.line, "not_matlab", "A closing ')' is missing; add it.")
        self._within.pop()
        self._next()
        return tuple(arguments)

    def _primary(self) -> Node:
        token = self._next()
        if token.kind == "number":
            return Node("number", token.line, (float(token.value.lower().replace("d", "e")),))
        if token.kind == "fault":
            raise token.content
        if token.kind in ("text", "plain"):
            return Node(token.kind, token.line, (token.content,))
        if token.kind == "name":
            if token.value == "end" and "(" in self._within:
                return Node("end", token.line)
            self._place -= 1
            return Node("name", token.line, (self._name(),))
        if token.value == "(":
            self._within.append("(")
            inner = self._expression()
            if self._token.value != ")":
                raise MatlabFault(self._token.line, "not_matlab", "A closing ')' is missing; add it.")
            self._within.pop()
            self._next()
            return inner
        if token.value in ("[", "{"):
            return self._brackets(token)
        shown = "The line ends" if token.kind in ("newline", "") else f"'{token.value or token.kind}' stands"
        raise MatlabFault(token.line, "not_matlab", f"{shown} where a value belongs; write one.")

    def _brackets(self, opening: _Token) -> Node:
        closing = "]" if opening.value == "[" else "}"
        self._within.append(opening.value)
        rows: list[tuple[Node, ...]] = []
        row: list[Node] = []
        while not (self._token.kind == "operator" and self._token.value == closing):
            token = self._token
            if not token.kind:
                raise MatlabFault(opening.line, "not_matlab", f"The bracket opened here has no '{closing}'; add it.")
            if token.kind == "newline" or token.value == ";":
                self._next()
                rows.extend([tuple(row)] if row else [])
                row = []
            elif token.value == ",":
                if not row or self._tokens[self._place + 1].value in (",", ";", closing):
                    raise MatlabFault(token.line, "not_matlab", "A value is missing beside the comma; write it.")
                self._next()
            else:
                row.append(self._expression())
        rows.extend([tuple(row)] if row else [])
        self._within.pop()
        self._next()
        return Node("matrix" if closing == "]" else "cell", opening.line, (tuple(rows),))

    # ---- tokens

    @property
    def _token(self) -> _Token:
        return self._tokens[self._place]

    @property
    def _in_matrix(self) -> bool:
        return bool(self._within) and self._within[-1] != "("

    def _next(self) -> _Token:
        token = self._tokens[self._place]
        self._place += 1 if token.kind else 0
        return token

    def _name(self) -> str:
        """A name with its fields: mpc.bus."""
        token = self._next()
        if token.kind != "name":
            raise MatlabFault(
                token.line, "not_matlab", f"'{token.value or token.kind}' stands where a name belongs; write one."
            )
        path = [token.value]
        while self._token.value == "." and self._token.kind == "operator" and not self._token.spaced:
            self._next()
            field = self._next()
            if field.kind != "name":
                raise MatlabFault(field.line, "matlab_not_read", "Fields are read by plain names only; write one.")
            path.append(field.value)
        return ".".join(path)
