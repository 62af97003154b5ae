"""AC optimal dispatch: the cheapest injections that keep every limit under the full power flow.

Successive programs on a feasible path (Fletcher's S-l1-QP): at a solved state, limits and balances are linear in the
controls, costs keep their shape, and the curvature of the Lagrangian function comes with the prices of the last pass.
Each answer is solved by power flow before it is believed; a trust region shrinks where the two differ too much.
R. Fletcher, "Practical Methods of Optimization" (1987), sections 12.3 and 14.4.

Where the grid above or a generator holds the voltage, power is what the grid asks there: such a *free* balance is a row
that the controllables at its node share, the interface among them. Its price is the price of energy there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from coflex.domain.errors import SolverFailure, refuse
from coflex.domain.quantity import Floats, Ints
from coflex.grid import powerflow
from coflex.grid.controllable import Controllables, faults, segments
from coflex.grid.network import Complexes, Network
from coflex.grid.powerflow import GridState
from coflex.grid.response import MAGNITUDE, REACTIVE, REAL, Point, Ports
from coflex.grid.rows import FROM, HIGH, LOW, TO, RowKeys
from coflex.grid.sensitivity import Linearisation
from coflex.solver import quadratic
from coflex.solver.program import Ending, Program, Solution

PASSES = 60
NEWTON_STEPS = 12
# MVA that an injection may lack on the way; a last step squares it away.
SOLVED = 1e-9
# What a further pass may still promise, as a share of the cost and in its own unit, when the answer stands.
PROMISE, PROMISE_FLOOR = 1e-10, 1e-9
# A step shorter than this share of the bounds' widths is the solver's noise.
STILL = 1e-10
# pu, share of a rating, or share of a MW that an accepted answer may lack.
VIOLATION = 1e-6
# Rows start with the limits that are this close, in pu or share of rating; others join when a step meets them.
AT_RISK = 0.02
# Penalty of a MW of violation, in dearest prices; raised as often as limits stay broken.
PENALTY, PENALTY_GROWTH, PENALTY_RAISES = 20.0, 30.0, 2
# How often a period may leave a point that is only the best nearby, and single columns tried each time.
ESCAPES, SINGLES = 6, 4
# Share of the cost that an answer may miss when the passes run out.
GAP = 1e-5


@dataclass(frozen=True, eq=False)
class Dispatched:
    """The answer. t periods, k controllables, n nodes, h nodes of held voltage, r limits that bind.

    `p_mw`, `q_mvar` (t, k); `cost_eur_h` (t,). `limits`: period, form and element of limits with a price or broken,
    `limit_names`, `limit_price` (r,): EUR/h per pu or share of rating that the limit would give, never positive, and
    `broken` (r,): by how much it stays broken, in the same unit.
    `energy_price`, `reactive_price` (t,): EUR/MWh and EUR/Mvarh of one more MW or Mvar withdrawn at the slack;
    `held_price` (t, h): the same for Mvar at nodes of held voltage, zero where they have no limit.
    `unbalanced` (t,): MW or Mvar that controllables at such nodes lack. `held_vm` (t, h), `slack_vm` (t,): pu.
    `promised` (t,): EUR/h that a further pass after the `passes` (t,) still saw to gain. `apparent`: as asked.
    """

    state: GridState
    p_mw: Floats
    q_mvar: Floats
    cost_eur_h: Floats
    limits: RowKeys
    limit_names: tuple[str, ...]
    limit_price: Floats
    broken: Floats
    energy_price: Floats
    reactive_price: Floats
    held_price: Floats
    unbalanced: Floats
    held_vm: Floats
    slack_vm: Floats
    passes: Ints
    promised: Floats
    apparent: bool

    @property
    def feasible(self) -> np.ndarray:
        """Periods (t,) in which every limit and balance holds to `VIOLATION`."""
        worst = self.unbalanced.copy()
        np.maximum.at(worst, self.limits.period, self.broken)
        return worst <= VIOLATION


def dispatch(
    network: Network,
    p_mw: Floats,
    q_mvar: Floats,
    chosen: Controllables,
    voltages: bool = False,
    apparent: bool = False,
    start: tuple[Floats, Floats] | None = None,
) -> Dispatched:
    """The cheapest injections of `chosen` on top of `p_mw`, `q_mvar` (t, n), each period by itself.

    Limits: voltage bands of all nodes, loadings of all branch ends; on |S| instead of |I| if `apparent`. With
    `voltages`, the slack's and all held magnitudes are chosen within their bands, else they are as given.
    `start`: MW and Mvar (t, k) to begin with. Guarantee: where `feasible`, the full power flow keeps every limit to
    1e-6; elsewhere `broken` and `unbalanced` name what no choice relieves near the answer. A local optimum: the
    problem is not convex. Raises Refused on faults of the controllables, GridFailure where the start has no power flow,
    SolverFailure when the passes do not come to an end.
    """
    refuse("The dispatch", faults(network, chosen))
    layout = _Layout(network, chosen, voltages, apparent)
    began = layout.start(chosen, start)
    injection = p_mw + 1j * q_mvar
    begun = powerflow.solve(network, *_parts(injection + layout.injections(began)))
    ends = []
    for t in range(len(p_mw)):
        task = _Task(layout, chosen.periods(np.array([t])), injection[t])
        ends.append(_Search(task, began[t], begun.u[t]).run())
    return _collect(layout, chosen, injection, ends)


# ---------------------------------------------------------------- layout


class _Layout:
    """Columns of the program: p of each controllable, q where it is a choice, then magnitudes. `effect` (ports,
    columns), `share` (balances, columns): which columns meet a free balance; balances are P and Q of the slack,
    then Q of those held nodes at which a controllable's q is a choice."""

    def __init__(self, network: Network, chosen: Controllables, voltages: bool, apparent: bool) -> None:
        self.network, self.apparent = network, apparent
        k = len(chosen)
        self.k, self.free_q = k, np.flatnonzero(np.isnan(chosen.tan_phi))
        self.tan_phi = np.nan_to_num(chosen.tan_phi)
        nodes = np.append(network.held, network.slack) if voltages else np.zeros(0, dtype=np.int64)
        self.magnitudes = nodes
        self.count = k + len(self.free_q) + len(nodes)
        self.node = np.concatenate([chosen.node, chosen.node[self.free_q], nodes])
        self.kind = np.repeat([REAL, REACTIVE, MAGNITUDE], [k, len(self.free_q), len(nodes)])
        self.limited_q = np.intersect1d(network.held, chosen.node[self.free_q])
        self.ports, self.effect = self._effects(chosen)
        self.share = self._shares(chosen)
        self.segments = [
            (i, *piece) for i, corners in enumerate(chosen._corners()) if corners for piece in segments(corners)
        ]
        self.segments += [(k + j, sign * chosen.use[i], 0.0) for j, i in enumerate(self.free_q) for sign in (-1, 1)]
        self.segments = [piece for piece in self.segments if piece[0] < k or piece[1]]
        self.curved = np.array(sorted({column for column, _, _ in self.segments}), dtype=np.int64)
        self.pieces = (
            np.array([column for column, _, _ in self.segments], dtype=np.int64),
            np.array([slope for _, slope, _ in self.segments]),
            np.array([at_zero for _, _, at_zero in self.segments]),
        )
        self.limits = self._limits()

    def _effects(self, chosen: Controllables) -> tuple[Ports, Floats]:
        """Ports that any column acts on, and how much."""
        network, n = self.network, self.network.n
        own = enumerate(zip(self.kind.tolist(), self.node.tolist(), strict=True))
        following = np.flatnonzero(self.tan_phi).tolist()
        every = [(kind, node, column, 1.0) for column, (kind, node) in own]
        every += [(REACTIVE, int(chosen.node[i]), i, float(self.tan_phi[i])) for i in following]
        held = {network.slack, *network.held.tolist()}
        acts = [
            (kind * n + node, column, by)
            for kind, node, column, by in every
            if kind == MAGNITUDE or (node != network.slack and not (kind == REACTIVE and node in held))
        ]
        codes = np.unique(np.array([code for code, _, _ in acts], dtype=np.int64))
        effect = np.zeros((len(codes), self.count))
        for code, column, by in acts:
            effect[np.searchsorted(codes, code), column] += by
        return Ports(codes // n, codes % n), effect

    def _shares(self, chosen: Controllables) -> Floats:
        slack = self.network.slack
        share = np.zeros((2 + len(self.limited_q), self.count))
        real, reactive = self.kind == REAL, self.kind == REACTIVE
        share[0, real & (self.node == slack)] = 1.0
        for row, node in enumerate((slack, *self.limited_q.tolist()), start=1):
            share[row, reactive & (self.node == node)] = 1.0
            tied = np.flatnonzero((chosen.node == node) & (self.tan_phi != 0))
            share[row, tied] = self.tan_phi[tied]
        return share

    def _limits(self) -> tuple[Ints, Ints, Floats]:
        """Form, index and bound of every limit that a power flow can break."""
        network = self.network
        inner = network.pq
        rated = [np.flatnonzero(np.isfinite(r)) for r in (network.rating_from, network.rating_to)]
        form = np.repeat([HIGH, LOW, FROM, TO], [len(inner), len(inner), len(rated[0]), len(rated[1])])
        bound = [network.v_max[inner], -network.v_min[inner], *(network.loading_max[r] for r in rated)]
        return form, np.concatenate([inner, inner, *rated]), np.concatenate(bound)

    def start(self, chosen: Controllables, start: tuple[Floats, Floats] | None) -> Floats:
        """Columns (t, count) to begin with: as given, else nothing, or as near to it as the bounds allow."""
        network, t = self.network, len(chosen.p_min)
        at = start or (np.zeros((t, self.k)), np.zeros((t, self.k)))
        p = np.clip(at[0], chosen.p_min, chosen.p_max)
        q = np.clip(at[1], chosen.q_min, chosen.q_max)[:, self.free_q]
        held = np.append(network.held_vm, network.slack_vm_pu)[: len(self.magnitudes)]
        return np.concatenate([p, q, np.tile(held, (t, 1))], axis=1)

    def bounds(self, one: Controllables) -> tuple[Floats, Floats]:
        """Lower and upper bound of each column in one period."""
        network, free = self.network, self.free_q
        band = network.v_min[self.magnitudes], network.v_max[self.magnitudes]
        return (
            np.concatenate([one.p_min[0], one.q_min[0, free], band[0]]),
            np.concatenate([one.p_max[0], one.q_max[0, free], band[1]]),
        )

    def powers(self, columns: Floats) -> tuple[Floats, Floats]:
        """MW and Mvar of the controllables (t, k) from columns (t, count)."""
        p = columns[:, : self.k]
        q = p * self.tan_phi
        q[:, self.free_q] = columns[:, self.k : self.k + len(self.free_q)]
        return p, q

    def injections(self, columns: Floats) -> Complexes:
        """What columns (t, count) inject at the nodes, (t, n) in MVA."""
        p, q = self.powers(columns)
        total = np.zeros((len(columns), self.network.n), dtype=np.complex128)
        np.add.at(total.T, self.node[: self.k], (p + 1j * q).T)
        return total


def _parts(power: Complexes) -> tuple[Floats, Floats]:
    return power.real.copy(), power.imag.copy()


# ---------------------------------------------------------------- one period


class _Task:
    """One period: bounds, costs and what is injected anyway."""

    def __init__(self, layout: _Layout, one: Controllables, injection: Complexes) -> None:
        self.layout, self.one, self.injection = layout, one, injection
        self.lower, self.upper = layout.bounds(one)
        self.slope = np.zeros(layout.count)
        k, free = layout.k, layout.free_q
        self.slope[:k] = one.c1[0] + one.q1[0] * layout.tan_phi
        self.slope[k : k + len(free)] = one.q1[0, free]
        self.bend = np.zeros(layout.count)
        self.bend[:k] = 2 * one.c2
        slopes = np.abs([piece[1] for piece in layout.segments] or [0.0]).max()
        finite = np.where(np.isfinite(self.upper), np.abs(self.upper), 0.0) + np.where(
            np.isfinite(self.lower), np.abs(self.lower), 0.0
        )
        self.dearest = float(max(np.abs(self.slope).max(), slopes, (self.bend * finite).max(), 1e-3))

    def cost(self, columns: Floats) -> float:
        """EUR/h of columns (count,)."""
        total = float(self.slope @ columns + 0.5 * (self.bend @ columns**2))
        return total + float(self.curves(columns).sum())

    def curves(self, columns: Floats) -> Floats:
        """EUR/h of each column whose cost has corners."""
        layout = self.layout
        level = np.full(len(layout.curved), -np.inf)
        if layout.segments:
            column, slope, at_zero = layout.pieces
            np.maximum.at(level, np.searchsorted(layout.curved, column), slope * columns[column] + at_zero)
        return level

    def solve(self, columns: Floats, near: Complexes) -> tuple[Floats, Point] | None:
        """Power flow from voltages nearby, free balances shared again; None where it does not converge."""
        layout, network = self.layout, self.layout.network
        u = near.copy()
        at = layout.k + len(layout.free_q) + np.arange(len(layout.magnitudes))
        target = dict(zip(layout.magnitudes.tolist(), columns[at].tolist(), strict=True))
        if layout.magnitudes.size:
            u[network.slack] *= target[network.slack] / abs(u[network.slack])
        held = np.array([target.get(node, vm) for node, vm in zip(network.held.tolist(), network.held_vm, strict=True)])
        u_solved = _newton(network, u, self.injection + layout.injections(columns[None, :])[0], held)
        if u_solved is None:
            return None
        point = Point(network, u_solved, layout.apparent)
        return self.shared(columns, point), point

    def lacking(self, columns: Floats, point: Point) -> Floats:
        """MW and Mvar that columns lack at free balances, (balances,)."""
        layout, network = self.layout, self.layout.network
        asked = point.injected - self.injection
        at = asked[network.slack]
        found: Floats = np.concatenate([[at.real, at.imag], asked[layout.limited_q].imag]) - layout.share @ columns
        return found

    def shared(self, columns: Floats, point: Point) -> Floats:
        """Columns with what free balances lack laid on those that share them: first on those inside their bounds."""
        layout, found = self.layout, columns.copy()
        for row, lacks in enumerate(self.lacking(columns, point)):
            sharing = np.flatnonzero((layout.share[row] == 1.0) & (layout.share.astype(bool).sum(axis=0) == 1))
            inside = (found[sharing] > self.lower[sharing]) & (found[sharing] < self.upper[sharing])
            left = lacks
            for c in sharing[np.argsort(~inside, kind="stable")]:
                taken = np.clip(found[c] + left, self.lower[c], self.upper[c]) - found[c]
                found[c] += taken
                left -= taken
        return found


def _newton(network: Network, u: Complexes, power: Complexes, held_vm: Floats) -> Complexes | None:
    """Voltages (n,) that inject `power` (n,) and hold `held_vm`, from ones nearby; None where there are none."""
    for _ in range(NEWTON_STEPS):
        missing = power - u * np.conj(network.admittance @ u)
        missing_p, missing_q = missing.real.copy(), missing.imag.copy()
        missing_q[network.held] = held_vm - np.abs(u[network.held])
        missing_p[network.slack] = missing_q[network.slack] = 0.0
        worst = max(np.abs(missing_p).max(), np.abs(missing_q).max())
        if not np.isfinite(worst) or worst > 1e9:
            return None
        if worst < SOLVED:
            return u
        angle, magnitude = Linearisation(network, u[None, :]).step(0, missing_p, missing_q)
        length = np.abs(u) + magnitude
        if (length <= 0.05).any():
            return None
        u = length * np.exp(1j * (np.angle(u) + angle))
    return None


@dataclass(frozen=True, eq=False)
class _End:
    """Where a period's search ended. `keys`: places in the layout's limits, `price` per unit of limit, `balance`
    (balances,): price per MW or Mvar of fixed injection there."""

    columns: Floats
    point: Point
    keys: Ints
    price: Floats
    balance: Floats
    passes: int
    promised: float


class _Search:
    """The passes of one period."""

    def __init__(self, task: _Task, columns: Floats, u: Complexes) -> None:
        self.task, self.layout = task, task.layout
        self.point = Point(self.layout.network, u, self.layout.apparent)
        self.columns = task.shared(columns, self.point)
        self.form, self.index, self.bound = self.layout.limits
        self.known = np.zeros(len(self.form), dtype=np.bool_)
        self.price, self.balance = np.zeros(len(self.form)), np.zeros(len(self.layout.share))
        self.radius, self.penalty, self.raises, self.escapes = 1.0, PENALTY * task.dearest, 0, 0
        self._look()
        # One MW of violation is as dear everywhere: a share of a rating counts as its MW, a pu as the MW that moves it.
        effect = np.abs(self.z).max(initial=0.0)
        volts = 1.0 / max(effect, 1e-9) if not self.layout.magnitudes.size else 1e3
        rating = self.layout.network
        self.weight = np.where(self.form <= LOW, volts, 1.0)
        for form, rated in ((FROM, rating.rating_from), (TO, rating.rating_to)):
            mine = self.form == form
            self.weight[mine] = rated[self.index[mine]]

    def run(self) -> _End:
        """Passes until nothing is left to gain. Raises SolverFailure when they do not come to an end."""
        for number in range(1, PASSES + 1):
            step, solution = self._program()
            promised = self._merit(self.columns, self.point) - self._predicted(solution)
            least = PROMISE * (abs(self.task.cost(self.columns)) + self.penalty) + PROMISE_FLOOR * self.task.dearest
            if promised <= least or self._reach(step) <= STILL * self.radius:
                if self._violated() > VIOLATION / 10 and self._dearer():
                    continue
                if self.escapes >= ESCAPES or not self._escaped(10 * least, solution.reduced_cost[: self.layout.count]):
                    return self._end(number, promised)
                continue
            self._try(step, promised)
            if self.radius < STILL:
                return self._end(number, promised)
        # What stays broken is an answer; what could still be much cheaper is none.
        if self._violated() <= VIOLATION and promised > GAP * abs(self.task.cost(self.columns)):
            raise SolverFailure(
                f"The dispatch still gains {promised:.2g} EUR/h after {PASSES} passes.",
                "Look at bounds and ratings that differ by many orders of magnitude.",
            )
        return self._end(number, promised)

    def _look(self) -> None:
        """Derivatives at the present point."""
        layout, network, point = self.layout, self.layout.network, self.point
        self.z = point.responses(layout.ports)
        self.by_column = self.z @ layout.effect
        self.value = self._values(point)
        self.known |= self.value > self.bound - AT_RISK
        real, reactive = point.power_gradients(np.append(network.slack, layout.limited_q))
        slope = np.concatenate([(real @ self.by_column)[:1], reactive @ self.by_column]).real
        self.balance_slope = slope - layout.share
        self.gradient: sparse.csr_array | None = None

    def _values(self, point: Point) -> Floats:
        values = point.values
        return np.concatenate([values[form][self.index[self.form == form]] for form in (HIGH, LOW, FROM, TO)])

    def _violated(self) -> float:
        lacking = np.abs(self.task.lacking(self.columns, self.point)).max(initial=0.0)
        return float(max(lacking, (self.value - self.bound).max(initial=0.0)))

    def _merit(self, columns: Floats, point: Point) -> float:
        broken = np.maximum(self._values(point) - self.bound, 0.0) @ self.weight
        lacking = np.abs(self.task.lacking(columns, point)).sum()
        return self.task.cost(columns) + self.penalty * float(broken + lacking)

    def _dearer(self) -> bool:
        """Raise the penalty once more; whether that was still possible."""
        if self.raises >= PENALTY_RAISES:
            return False
        self.raises += 1
        self.penalty *= PENALTY_GROWTH
        self.radius = 1.0
        return True

    def _try(self, step: Floats, promised: float) -> bool:
        """Solve where a step leads; take it if enough of the promise is kept, else shrink the region."""
        found, kept = self._kept(step, promised)
        if found is not None and kept < 0.75:
            second = self._corrected(step, found[1])
            other, better = self._kept(second, promised)
            if better > kept:
                step, found, kept = second, other, better
        reach = self._reach(step)
        if kept < 0.25:
            self.radius = 0.25 * min(self.radius, reach)
        elif kept > 0.75 and reach > 0.9 * self.radius:
            self.radius = min(1.0, 2.0 * self.radius)
        if found is None or kept < 1e-3:
            return False
        self.columns, self.point = found
        self._look()
        return True

    def _kept(self, step: Floats, promised: float) -> tuple[tuple[Floats, Point] | None, float]:
        """Where a step leads by power flow, and the share of the promise that the merit keeps there."""
        near = self.point.moved(self.z, self.layout.effect @ step)
        found = self.task.solve(np.clip(self.columns + step, self.task.lower, self.task.upper), near)
        if found is None:
            return None, -np.inf
        noise = 1e-9 * (abs(self.task.cost(self.columns)) + self.penalty * SOLVED)
        gained = self._merit(self.columns, self.point) - self._merit(*found)
        return found, (gained + noise) / promised

    def _corrected(self, step: Floats, there: Point) -> Floats:
        """The step again, for limits and balances as curved as they were found to be on the way (a second-order
        correction: without it, steps along a curved limit stay short; Fletcher, section 14.4)."""
        nodes = np.append(self.layout.network.slack, self.layout.limited_q)
        power = (there.injected - self.point.injected)[nodes]
        balance = np.concatenate([power[:1].real, power.imag]) - (self.balance_slope + self.layout.share) @ step
        limits = self._values(there) - self.value - self._believed(step)
        price, at_free = self.price.copy(), self.balance
        second, _ = self._program((limits, balance))
        self.price, self.balance = price, at_free
        return second

    def _escaped(self, least: float, slope: Floats) -> bool:
        """Leave a point that no small step improves for one that a long step does; `slope`: reduced costs there.

        Losses curve a cost downwards where an exchange is sought that is far and not cheap. The curvature names the
        steps worth a power flow: single columns from bound to bound, and the direction in which it falls most."""
        column, task, layout = self.columns, self.task, self.layout
        curvature, moves = self._curvature(), layout.effect.any(axis=0)
        if not (np.diag(curvature) < 0).any():
            return False
        edge = 1e-6 * np.where(moves, self._widths(), 0.0)
        low, high = column <= task.lower + edge, column >= task.upper - edge
        across = np.where(moves & (low != high), np.where(low, task.upper, task.lower) - column, 0.0)
        gain = -(slope * across + 0.5 * np.diag(curvature) * across**2)
        steps = [across[c] * np.eye(len(column))[c] for c in np.argsort(-gain)[:SINGLES] if gain[c] > least]
        way = self._falling(curvature, np.flatnonzero(moves & ~low & ~high), ~low & ~high)
        steps += [] if way is None else [self._to_bounds(way), self._to_bounds(-way)]
        found = [self._kept(step, 1.0) for step in steps]
        best, gained = max(found, key=lambda one: one[1], default=(None, 0.0))
        if best is None or gained <= least:
            return False
        self.escapes, self.radius = self.escapes + 1, 1.0
        self.columns, self.point = best
        self._look()
        return True

    def _falling(self, curvature: Floats, free: Ints, inside: np.ndarray) -> Floats | None:
        """The direction of most negative curvature in the free columns that leaves alone what binds."""
        rows = np.flatnonzero(self.price)
        stiff = ~((self.layout.share != 0) & inside).any(axis=1)
        gradients = self.point.gradients(self.form[rows], self.index[rows])
        held = np.concatenate([(gradients @ self.by_column).real, self.balance_slope[stiff]])[:, free]
        _, size, basis = np.linalg.svd(held, full_matrices=True)
        within = basis[int((size > 1e-9 * size.max(initial=0.0)).sum()) :].T
        if not within.size:
            return None
        value, vector = np.linalg.eigh(within.T @ curvature[np.ix_(free, free)] @ within)
        if value[0] >= -1e-9 * np.abs(value).max():
            return None
        way = np.zeros(self.layout.count)
        way[free] = within @ vector[:, 0]
        return way

    def _to_bounds(self, way: Floats) -> Floats:
        """The longest step along a direction that stays within the bounds."""
        room = np.where(way > 0, self.task.upper - self.columns, self.task.lower - self.columns)
        moving = np.abs(way) > 1e-12
        step: Floats = way * float(np.min(room[moving] / way[moving]))
        return step

    def _widths(self) -> Floats:
        """The width of each column that moves the grid; infinite for those that share a free balance alone."""
        moves = self.layout.effect.any(axis=0)
        return np.where(moves, self.task.upper - self.task.lower, np.inf)

    def _reach(self, step: Floats) -> float:
        width = self._widths()
        return float(np.max(np.abs(step) / np.where(width > 1e-9, width, np.inf), initial=0.0))

    # ------------------------------------------------------------ the program of a pass

    def _program(self, bent: tuple[Floats, Floats] | None = None) -> tuple[Floats, Solution]:
        """The step of the pass and its program's solution; limits that the step would break join the rows. `bent`:
        what limits and balances take besides their slope."""
        hessian = self._hessian()
        bent = bent or (np.zeros(len(self.form)), np.zeros(len(self.balance)))
        while True:
            rows = np.flatnonzero(self.known)
            slope = (self._gradients(rows) @ self.by_column).real
            program, curvature = self._assembled(rows, slope, hessian, (bent[0][rows], bent[1]))
            solution = self._solved(program, curvature)
            if solution.ending is not Ending.OPTIMAL:
                raise SolverFailure(
                    f"The program of a pass is {solution.ending.value}.",
                    "Give bounds to controllables whose cost falls without end.",
                )
            step = solution.x[: self.layout.count]
            ahead = self.value + self._believed(step) + bent[0]
            broken = (ahead > self.bound + VIOLATION / 10) & ~self.known
            if not broken.any():
                break
            self.known |= broken
        self.price[:] = 0.0
        self.price[rows] = solution.row_price[: len(rows)]
        self.balance = -solution.row_price[len(rows) : len(rows) + len(self.balance)]
        return step, solution

    def _solved(self, program: Program, curvature: sparse.csr_array) -> Solution:
        """The program of a pass; without its curvature where penalties spoil the numbers for the cone solver, as the
        trust region allows for any model."""
        try:
            return quadratic.solve(program, curvature)
        except SolverFailure:
            return quadratic.solve(program)

    def _gradients(self, rows: Ints) -> sparse.csr_array:
        if self.gradient is None or self.gradient.shape[0] != len(rows):
            self.gradient = self.point.gradients(self.form[rows], self.index[rows])
        return self.gradient

    def _believed(self, step: Floats) -> Floats:
        """Change of every limit's quantity by a step, to first order."""
        point, network = self.point, self.layout.network
        du = self.by_column @ step
        vm = (np.conj(point.u) * du).real / np.abs(point.u)
        change = np.empty(len(self.form))
        voltage = self.form <= LOW
        change[voltage] = np.where(self.form[voltage] == HIGH, 1.0, -1.0) * vm[self.index[voltage]]
        for end, form in enumerate((FROM, TO)):
            mine = self.form == form
            branch = self.index[mine]
            node = (network.from_node, network.to_node)[end][branch]
            current = point.ends[end][branch]
            length = np.maximum(np.abs(current), 1e-12)
            moved = (np.conj(current) * (network.terminal_admittance[end] @ du)[branch]).real / length
            if point.apparent:
                moved = moved * np.abs(point.u[node]) + length * vm[node]
            change[mine] = moved / (network.rating_from, network.rating_to)[end][branch]
        return change

    def _assembled(
        self, rows: Ints, slope: Floats, hessian: Floats, bent: tuple[Floats, Floats]
    ) -> tuple[Program, sparse.csr_array]:
        """Columns: the step, cost of curves, slack of each limit, slack of balances both ways. Rows: limits,
        balances, pieces of curves."""
        layout, task = self.layout, self.task
        count, curves, limits, balances = layout.count, len(layout.curved), len(rows), len(self.balance)
        pieces = np.zeros((len(layout.segments), count + curves))
        level = np.zeros(len(layout.segments))
        for r, (column, by, at_zero) in enumerate(layout.segments):
            pieces[r, column], pieces[r, count + int(np.searchsorted(layout.curved, column))] = by, -1.0
            level[r] = -at_zero - by * self.columns[column]
        eye, blank = np.eye(balances), np.zeros
        matrix = np.block(
            [
                [slope, blank((limits, curves)), -np.diag(1 / self.weight[rows]), blank((limits, 2 * balances))],
                [self.balance_slope, blank((balances, curves + limits)), eye, -eye],
                [pieces, blank((len(level), limits + 2 * balances))],
            ]
        )
        lacking = self.task.lacking(self.columns, self.point) + bent[1]
        none = np.full(limits + len(level), -np.inf)
        reach = self.radius * self._widths() if self.radius < 1 else np.full(count, np.inf)
        penalties = np.full(limits + 2 * balances, self.penalty)
        program = Program(
            cost=np.concatenate([task.slope + task.bend * self.columns, np.ones(curves), penalties]),
            matrix=sparse.csr_array(matrix),
            row_lower=np.concatenate([none[:limits], -lacking, none[limits:]]),
            row_upper=np.concatenate([self.bound[rows] - self.value[rows] - bent[0], -lacking, level]),
            lower=np.concatenate(
                [np.maximum(task.lower - self.columns, -reach), np.full(curves, -np.inf), np.zeros(len(penalties))]
            ),
            upper=np.concatenate(
                [np.minimum(task.upper - self.columns, reach), np.full(curves + len(penalties), np.inf)]
            ),
            integer=np.zeros(count + curves + len(penalties), dtype=np.bool_),
        )
        size = len(program.cost)
        wide = sparse.csr_array(hessian)
        wide.resize((size, size))
        return program, wide

    def _predicted(self, solution: Solution) -> float:
        """Merit that the program promises: its cost counts from the smooth cost of the present columns."""
        task = self.task
        return solution.cost + float(task.slope @ self.columns + 0.5 * (task.bend @ self.columns**2))

    def _hessian(self) -> Floats:
        """Curvature in the columns, made convex: of costs alone until there are prices."""
        if not (self.price.any() or self.balance.any()):
            return np.diag(self.task.bend)
        return _convex(self._curvature())

    def _curvature(self) -> Floats:
        """Curvature in the columns of costs and of the Lagrangian function at the last prices."""
        layout = self.layout
        rows = np.flatnonzero(self.price)
        weight, at_held = lagrangian(
            self.point, self.form[rows], self.index[rows], self.price[rows], *self._balance_prices()
        )
        form, index = np.full(len(at_held), HIGH), layout.network.held
        ports = self.point.power_curvature(weight, self.z)
        ports += self.point.limit_curvature(self.form[rows], self.index[rows], -self.price[rows], self.z)
        ports += self.point.limit_curvature(form, index, at_held, self.z)
        found: Floats = np.diag(self.task.bend) + layout.effect.T @ ports @ layout.effect
        return found

    def _balance_prices(self) -> tuple[complex, Floats]:
        """Price of withdrawal at the slack (complex), and of Mvar at each held node."""
        layout = self.layout
        held = np.zeros(len(layout.network.held))
        held[np.isin(layout.network.held, layout.limited_q)] = self.balance[2:]
        return complex(self.balance[0], self.balance[1]), held

    def _end(self, passes: int, promised: float) -> _End:
        keys = np.flatnonzero((np.abs(self.price) > 1e-9 * self.penalty) | (self.value > self.bound + VIOLATION))
        return _End(self.columns, self.point, keys, self.price[keys], self.balance, passes, max(promised, 0.0))


def lagrangian(
    point: Point, form: Ints, index: Ints, price: Floats, at_slack: complex, at_held: Floats
) -> tuple[Complexes, Floats]:
    """Price of withdrawal at every node, EUR/MWh + j EUR/Mvarh, and what holding one more pu costs at each held node.

    `price` (r,): EUR/h per unit of each limit, not positive. `at_slack`, `at_held` (h,): prices of withdrawal there.
    """
    network = point.network
    real, reactive = point.power_gradients(np.append(network.slack, network.held))
    gradient = -np.append(at_slack.imag, at_held) @ reactive
    gradient = gradient - np.append(at_slack.real, np.zeros(len(at_held))) @ real
    if len(form):
        gradient = gradient + price @ point.gradients(form, index)
    dp, dq = (part[:, 0] for part in point.adjoint(gradient[:, None]))
    by_magnitude = dq[network.held]
    dq[network.held] = at_held
    prices = dp + 1j * dq
    prices[network.slack] = at_slack
    return prices, by_magnitude


def _convex(matrix: Floats) -> Floats:
    """The nearest positive semidefinite matrix: negative curvature is taken for none."""
    matrix = (matrix + matrix.T) / 2
    value, vector = np.linalg.eigh(matrix)
    if value[0] >= 0:
        return matrix
    found: Floats = (vector * np.maximum(value, 0.0)) @ vector.T
    return (found + found.T) / 2


# ---------------------------------------------------------------- the answer


def _collect(layout: _Layout, chosen: Controllables, injection: Complexes, ends: list[_End]) -> Dispatched:
    network = layout.network
    columns = np.array([end.columns for end in ends]).reshape(len(ends), layout.count)
    p, q = layout.powers(columns)
    u = np.array([end.point.u for end in ends]).reshape(len(ends), network.n)
    total = _parts(injection + layout.injections(columns))
    # Where no magnitude is chosen, the engine's own power flow is the judge.
    chooses = len(layout.magnitudes) or len(network.held)
    state = powerflow.state_of(network, u, *total) if chooses else powerflow.solve(network, *total)
    form, index, bound = layout.limits
    period = np.repeat(np.arange(len(ends)), [len(end.keys) for end in ends])
    keys = np.concatenate([end.keys for end in ends]) if ends else np.zeros(0, dtype=np.int64)
    limits = RowKeys(period, form[keys], index[keys])
    points = [Point(network, one, layout.apparent) for one in state.u]
    value = np.array([points[t].values[f][i] for t, f, i in zip(period, form[keys], index[keys], strict=True)])
    balance = np.array([end.balance for end in ends]).reshape(len(ends), 2 + len(layout.limited_q))
    held_price = np.zeros((len(ends), len(network.held)))
    held_price[:, np.isin(network.held, layout.limited_q)] = balance[:, 2:]
    tasks = [_Task(layout, chosen.periods(np.array([t])), injection[t]) for t in range(len(ends))]
    lacking = [np.abs(task.lacking(end.columns, end.point)).max() for task, end in zip(tasks, ends, strict=True)]
    return Dispatched(
        state=state,
        p_mw=p,
        q_mvar=q,
        cost_eur_h=chosen.cost(p, q).sum(axis=1),
        limits=limits,
        limit_names=tuple(_name(network, f, i) for f, i in zip(limits.form, limits.index, strict=True)),
        limit_price=np.concatenate([end.price for end in ends]) if ends else np.zeros(0),
        broken=np.maximum(value - bound[keys], 0.0),
        energy_price=balance[:, 0],
        reactive_price=balance[:, 1],
        held_price=held_price,
        unbalanced=np.array(lacking),
        held_vm=np.abs(u[:, network.held]),
        slack_vm=np.abs(u[:, network.slack]),
        passes=np.array([end.passes for end in ends], dtype=np.int64),
        promised=np.array([end.promised for end in ends]),
        apparent=layout.apparent,
    )


def _name(network: Network, form: int, index: int) -> str:
    if form in (HIGH, LOW):
        return f"voltage_{'high' if form == HIGH else 'low'} {network.node_names[index]}"
    return f"loading {network.branch_names[index]}"
