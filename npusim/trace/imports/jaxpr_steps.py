"""The operations of a training step in the equations of a jaxpr.

| equation                            | becomes                                                                     |
|-------------------------------------|-----------------------------------------------------------------------------|
| `conv_general_dilated`              | conv; its gradients are found by which operand of the forward one they read |
| `dot_general` with a parameter      | linear, and its gradients                                                   |
| `dot_general` of two activations    | matmul, and its gradients                                                   |
| `reduce_window_max`, `..._sum`, `select_and_scatter_add` | pool and its gradient                                  |
| reshape, transpose, slice, ...      | nothing: addressing                                                         |
| runs of others that feed each other | one elementwise operation, as XLA fuses them: inputs and results move once  |
| from gradients to new parameters    | one update each; sgd, momentum or adam by the number of states              |

An equation is of the backward pass when its name stack holds `transpose(`, which is how JAX marks it, unless it
recomputes the forward pass (`rematted_computation`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from npusim.errors import NpusimError, TraceError
from npusim.graph import Conv, Dims, Gemm, Op, Pool, StepGraph, Tensor, Vector
from npusim.trace.imports.jaxpr_values import Equation, Made, Program, Shape, Values, count

VIEWS = frozenset((
    "reshape", "transpose", "rev", "squeeze", "expand_dims", "copy", "copy_p", "stop_gradient", "slice",
    "dynamic_slice", "convert_element_type", "reduce_precision", "optimization_barrier", "sharding_constraint",
))  # fmt: skip
CONV, DOT = "conv_general_dilated", "dot_general"
POOLS = ("reduce_window_max", "reduce_window_sum", "select_and_scatter_add")


def step_of(program: Program, label: str, name: str, skip_unknown: bool) -> StepGraph:
    """The step graph of a jaxpr; TraceError names the equation that stands in the way."""
    work = _Step(program, label, skip_unknown=skip_unknown)
    graph = work.graph(name)
    try:
        graph.verify()
    except NpusimError as error:
        raise TraceError(f"{label}: {error}") from None
    return graph


@dataclass
class _Step(Values):
    skip_unknown: bool = False
    ops: list[Op] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    run: list[Equation] = field(default_factory=list)

    def graph(self, name: str) -> StepGraph:
        program = self.program
        self._find_parameters()
        for equation in program.equations:
            try:
                self._equation(equation)
            except (TypeError, ValueError, IndexError, KeyError, AttributeError, ZeroDivisionError) as error:
                raise self._stuck(equation, f"its operands do not fit ({type(error).__name__}: {error})") from None
        self._flush()
        products = [op for op in self.ops if op.macs and op.phase == "forward"]
        if not products or not any(op.phase in ("grad_input", "grad_weight") and op.macs for op in self.ops):
            missing = "backward" if products else "convolution or matrix product"
            raise TraceError(f"{self.label}: the jaxpr holds no {missing}; trace a whole training step")
        self._updates()
        first = products[0].dims
        meta = {
            "made_by": "npusim.trace.from_jaxpr", "jax": program.jax, "method": "dense", "skipped": self.skipped,
            "batch": first.n if isinstance(first, Conv) else 1,
        }  # fmt: skip
        return StepGraph(name, tuple(self.ops), self.tensors, meta=meta)

    # --- parameters, gradients, updates

    def _find_parameters(self) -> None:
        """Parameters are the first arguments that come back with the same shape and that the forward pass reads."""
        program = self.program
        writer = {v: e for e in program.equations for v in e.writes if v >= 0}
        pairs = []
        for before, after in zip(program.invars, program.outvars, strict=False):
            if before < 0 or after < 0 or program.kinds[before] != program.kinds[after]:
                break
            pairs.append((before, after))
        late = self.late = self._of_updates({before for before, _ in pairs})
        forward = {v for e in program.equations if e.index not in late for v in e.reads}
        self.parameters = {before: after for before, after in pairs if before in forward}
        self.pieces = self._pieces(late)
        if not self.parameters:
            raise TraceError(
                f"{self.label}: the first results are not the new values of the first arguments; "
                "trace step(parameters, ...) -> (new parameters, ...)"
            )
        states = {before for before, _ in pairs} - set(self.parameters)
        given = self.program.names or []
        self.gradient_of: dict[int, int] = {}
        self.states: dict[int, list[int]] = {}
        self.skip: set[int] = set()
        for place, (before, after) in enumerate(list(self.parameters.items())):
            name = given[place] if place < len(given) else ""
            if name:
                self.names[before] = name
            cone, seen = [after], set()
            while cone:
                v = cone.pop()
                if v in seen or v < 0:
                    continue
                seen.add(v)
                equation = writer.get(v)
                if equation is not None and equation.backward:
                    if before in self.pieces and equation.params.get("rows"):
                        self.skip.add(equation.index)
                        self.gradient_of |= dict(zip(equation.reads, self.pieces[before], strict=True))
                    elif count(program.kinds[v][0]) == count(program.kinds[before][0]):
                        self.gradient_of.setdefault(v, before)
                elif equation is not None and equation.index in late:
                    cone += equation.reads
            same = [s for s in states if s in seen and program.kinds[s] == program.kinds[before]]
            self.states[before] = sorted(same)[:2]
            if before in self.pieces:
                del self.parameters[before]
                module, _, leaf = (name or self._unique("stacked.weight")).rpartition(".")
                for i, piece in enumerate(self.pieces[before]):
                    self.parameters[piece], self.states[piece] = after, self.states[before]
                    self.names[piece] = f"{module}.{i}.{leaf}".lstrip(".")

    def _pieces(self, late: set[int]) -> dict[int, list[int]]:
        """Parameters that are read only row by row, by unrolled loops over layers: each row is one of its own."""
        rows: dict[int, dict[int, int]] = {}
        other: set[int] = set()
        for equation in self.program.equations:
            if equation.primitive == "slice" and equation.reads[0] in self.parameters and "row" in equation.params:
                rows.setdefault(equation.reads[0], {})[equation.params["row"]] = equation.writes[0]
            elif equation.index not in late:
                other.update(equation.reads)
        return {
            before: [found[i] for i in range(len(found))] for before, found in rows.items()
            if before not in other and set(found) == set(range(self._shape(before)[0]))
        }  # fmt: skip

    def _of_updates(self, kept: set[int]) -> set[int]:
        """Equations of updates: what follows from gradients, or turns nothing but parameters and state (`kept`)."""
        gradients: set[int] = set()
        data = {v for v in self.program.invars if v not in kept}
        found = set()
        for equation in self.program.equations:
            writes = [v for v in equation.writes if v >= 0]
            if equation.backward or any(v in gradients for v in equation.reads):
                gradients.update(writes)
                if not equation.backward:
                    found.add(equation.index)
            elif any(v in data for v in equation.reads):
                data.update(writes)
        needed: set[int] = set()
        for equation in reversed(self.program.equations):
            if equation.index in found:
                continue
            if equation.backward or equation.primitive in (CONV, DOT) or any(v in needed for v in equation.writes):
                needed.update(equation.reads)
            elif not any(v in data for v in equation.writes):
                found.add(equation.index)
        return found

    def _updates(self) -> None:
        written = {t.grad_of: t.name for t in self.tensors.values() if t.kind == "weight_gradient" and t.grad_of}
        for before in self.parameters:
            weight = self.names.get(before, "")
            if weight not in written or weight not in self.tensors:
                continue
            tensor = self.tensors[weight]
            held = tuple(f"{weight}.state{i + 1}" for i in range(len(self.states[before])))
            for part in held:
                self.tensors[part] = Tensor(part, tensor.shape, "state", tensor.dtype)
            kind, module = ("sgd", "momentum", "adam")[len(held)], weight.rpartition(".")[0] or weight
            reads = (weight, written[weight], *held)
            self.ops.append(Op(module, "update", kind, Vector(tensor.elements), reads, (weight, *held), weight))

    # --- equations

    def _equation(self, equation: Equation) -> None:
        if not equation.writes:  # such as a debug callback
            return
        row = equation.writes[0] in self.parameters
        if row or equation.index in self.late or equation.index in self.skip:
            return
        if equation.params.get("products"):
            if not self.skip_unknown:
                hint = (
                    "write it as a scan or fori_loop of fixed length" if equation.primitive == "while" else "unroll it"
                )
                raise self._stuck(
                    equation, f"multiplies matrices inside, which is not looked into; {hint}, or --skip-unknown"
                )
            self.skipped.append(f"eqns[{equation.index}] {equation.primitive}"[:200])
            return
        if equation.primitive in VIEWS or self._only_repeats(equation):
            for v in equation.writes:
                self.root[v] = equation.reads[0]
                if count(self._shape(v)) != count(self._shape(equation.reads[0])):
                    self.parts.add(v)
        elif equation.primitive in (CONV, DOT):
            self._flush()
            self._backward_product(equation) if equation.backward else self._forward_product(equation)
        elif equation.primitive in POOLS:
            self._flush()
            self._pool(equation)
        else:
            if self.run and self.run[-1].backward != equation.backward:
                self._flush()
            self.run.append(equation)

    def _only_repeats(self, equation: Equation) -> bool:
        if equation.primitive != "broadcast_in_dim" or equation.reads[0] < 0:
            return False
        return count(self._shape(equation.reads[0])) == count(self._shape(equation.writes[0]))

    def _forward_product(self, equation: Equation) -> None:
        a, b = (self._root(v) for v in equation.reads[:2])
        weight = next((v for v in (b, a) if self._is_weight(v)), -1)
        if equation.primitive == CONV:
            dims: Dims = self._conv(equation)
            kind, weight = "conv", b
        else:
            batch, m, n, k = _gemm(equation, *(self._shape(v) for v in equation.reads[:2]))
            dims, kind = Gemm(batch, m, n, k), "matmul"
            if weight >= 0 and batch == 1:
                dims, kind = Conv(m if weight == b else n, k, 1, 1, n if weight == b else m), "linear"
            else:
                weight = -1
        name = self._unique(kind)
        if weight >= 0:
            self._name_weight(weight, name, dims)
            x = a if weight == b else b
            reads: tuple[str, ...] = (self._use(x), self.names[weight])
        else:
            x, reads = a, (self._use(a), self._use(b))
        output = self._produce(equation.writes[0], f"{name}:y", "activation")
        op = Op(name, "forward", kind, dims, reads, (output,), self.names[weight] if weight >= 0 else "")
        self.ops.append(op)
        x, other = (self._near(v) for v in equation.reads[:2])
        if weight >= 0:
            x, other = (x if weight == b else other), weight
        self.made.append(Made(op, (x, other), weight))

    def _backward_product(self, equation: Equation) -> None:
        a, b = (self._near(v) for v in equation.reads[:2])
        size = count(self._shape(equation.writes[0]))
        # Of several products with one weight (a recurrent layer), one that has no input gradient yet.
        for made in sorted(reversed(self.made), key=lambda made: made.propagated):
            x, w = made.reads
            weight = self.tensors[self.names[w]].elements if made.weight >= 0 else -1
            if made.weight >= 0 and w in (a, b) and size == self._elements(x):
                dy = b if w == a else a
                made.propagated = True
                out = self._gradient(equation.writes[0], x)
                self._emit(made, "grad_input", made.op.dims, (self._grad_name(dy, made), self.names[w]), out)
                return
            if made.weight >= 0 and x in (a, b) and size == weight:
                dy = b if x == a else a
                out = self._weight_gradient(equation.writes[0], w)
                self._emit(
                    made, "grad_weight", made.op.dims, (self._grad_name(dy, made), self._use(self._root(x))), out
                )
                return
            if made.weight < 0 and made.op.kind == "matmul" and (x in (a, b) or w in (a, b)):
                target = w if x in (a, b) and size == self._elements(w) and w not in (a, b) else x
                target = w if x in (a, b) and target == x and w not in (a, b) else target
                sizes = _gemm(equation, *(self._shape(v) for v in equation.reads[:2]))
                if sizes[0] * sizes[1] * sizes[2] * sizes[3] != made.op.macs:
                    continue
                names = tuple(self._use(self._root(v)) if v in (x, w) else self._grad_name(v, made) for v in (a, b))
                self._emit(made, "grad_input", Gemm(*sizes), names, self._gradient(equation.writes[0], target))
                return
        shapes = sorted((self._shape(a), self._shape(b)))
        for made in reversed(self.made):  # the input was computed again, by equations that stop before the product
            x, w = made.reads
            y = self.tensors[made.op.outputs[0]].shape
            if made.weight >= 0 and size == self._elements(w) and shapes == sorted((self._shape(x), y)):
                dy, x = (a, b) if self._shape(a) == y else (b, a)
                out = self._weight_gradient(equation.writes[0], w)
                names = (self._grad_name(dy, made), self._use(self._root(x)))
                self._emit(made, "grad_weight", made.op.dims, names, out)
                return
        raise self._stuck(equation, "reads neither a weight nor an input of an earlier forward product")

    def _emit(self, made: Made, phase: str, dims: Dims, reads: tuple[str, ...], output: str) -> None:
        self.ops.append(Op(made.op.name, phase, made.op.kind, dims, reads, (output,), made.op.param))

    def _conv(self, equation: Equation) -> Conv:
        from npusim.trace.imports.onnx_model import Unknown
        from npusim.trace.imports.onnx_nodes import fitting_padding

        p = equation.params
        x, w, y = (self._shape(v) for v in (*equation.reads[:2], equation.writes[0]))
        (lhs, rhs, out), groups = p["specs"], p["feature_group_count"]
        if len(x) not in (3, 4) or set(p["lhs_dilation"]) - {1} or p["batch_group_count"] != 1:
            what = f"over {len(x) - 2} dimensions" if len(x) not in (3, 4) else "transposed or grouped by batch"
            raise self._stuck(equation, f"is a convolution {what}; plain ones over 1 and 2 dimensions are known")
        stride, dilation = list(p["window_strides"]), list(p["rhs_dilation"])
        padding = []
        for i, axis in enumerate(lhs[2:]):
            extent = (w[rhs[2 + i]] - 1) * dilation[i] + 1
            try:
                padding.append(fitting_padding(x[axis], y[out[2 + i]], extent, stride[i], sum(p["padding"][i])))
            except Unknown as problem:
                raise self._stuck(equation, str(problem)) from None
        size, window = [x[axis] for axis in lhs[2:]], [w[axis] for axis in rhs[2:]]
        if len(x) == 3:
            size, window, stride, dilation, padding = (
                [1, *size],
                [1, *window],
                [1, *stride],
                [1, *dilation],
                [0, *padding],
            )
        return Conv(
            x[lhs[0]], x[lhs[1]], size[0], size[1], w[rhs[0]], window[0], window[1], (stride[0], stride[1]),
            (padding[0], padding[1]), (dilation[0], dilation[1]), groups,
        )  # fmt: skip

    def _pool(self, equation: Equation) -> None:
        """Pooling over the two axes whose window is not 1; its gradient has the dimensions of the forward one."""
        if equation.primitive == "select_and_scatter_add":
            source = self._root(equation.reads[1])
            op = next((op for op in reversed(self.ops) if op.kind == "pool" and self._use(source) in op.inputs), None)
            if op is None:
                raise self._stuck(equation, "its forward pooling is not known")
            dy = self._grad_name(self._root(equation.reads[0]), Made(op, (source, source)))
            out = self._gradient(equation.writes[0], source)
            self.ops.append(Op(op.name, "grad_input", "pool", op.dims, (dy, self._use(source)), (out,)))
            return
        x, y = self._shape(equation.reads[0]), self._shape(equation.writes[0])
        window, stride = list(equation.params["window_dimensions"]), list(equation.params["window_strides"])
        axes = [i for i, size in enumerate(window) if size > 1] or [len(x) - 2, len(x) - 1]
        axes = axes if len(axes) > 1 else sorted({axes[0], max(1, axes[0] - 1) if axes[0] > 1 else axes[0] + 1})
        if len(axes) != 2 or len(x) != 4:
            raise self._stuck(equation, "pools over other than two of four axes")
        i, j = axes
        channels = count(x) // (x[0] * x[i] * x[j])
        pads = [pad[0] for pad in equation.params["padding"]]
        dims = Pool(
            x[0], channels, x[i], x[j], y[i], y[j], window[i], window[j], (stride[i], stride[j]), (pads[i], pads[j])
        )
        phase = "grad_input" if equation.backward else "forward"
        name, reads = self._unique("pool"), (self._use(self._root(equation.reads[0])),)
        kind = "gradient" if equation.backward else "activation"
        self.ops.append(Op(name, phase, "pool", dims, reads, (self._produce(equation.writes[0], f"{name}:y", kind),)))

    def _flush(self) -> None:
        """Emit the waiting elementwise equations: one operation for each set that feeds each other."""
        run, self.run = self.run, []
        group: dict[int, list[Equation]] = {}
        of: dict[int, list[Equation]] = {}
        for equation in run:
            joined: list[Equation] = [equation]
            for v in {self._root(v) for v in equation.reads if v >= 0}:
                other = of.get(v)
                if other is not None and other is not joined and count(self._shape(v)) > 1:
                    if len(other) > len(joined):
                        joined, other = other, joined
                    joined += other
                    for item in other:
                        of.update({w: joined for w in item.writes})
            of.update({w: joined for item in joined for w in item.writes})
        for equation in run:
            members = of[equation.writes[0]]
            group.setdefault(id(members), members)
        for members in group.values():
            self._fused(sorted(members, key=lambda item: item.index))

    def _fused(self, members: list[Equation]) -> None:
        inside = {v for item in members for v in item.writes}
        reads = dict.fromkeys(self._root(v) for item in members for v in item.reads if v >= 0)
        wide = [v for v in reads if v not in inside and self._is_float(v) and count(self._shape(v)) > 1]
        later = self._read_after(inside, {item.index for item in members})
        results = [v for v in inside if v in later and self._is_float(v)]
        sizes = [max(count(self._shape(v)) for v in (*item.reads, *item.writes) if v >= 0) for item in members]
        if not results or max(sizes) < 2 or not wide:
            return
        backward = members[0].backward
        gradients = [v for v in results if v in self.gradient_of]
        name = self._unique("elementwise")
        inputs = tuple(dict.fromkeys(self._use(v) for v in wide))
        phase, param, kind = ("grad_input" if backward else "forward"), "", "elementwise"
        if gradients and len(gradients) == len(results):
            phase, param = "grad_weight", self._parameter_name(self.gradient_of[gradients[0]])
            kind = "bias_grad" if len(members) == 1 and members[0].primitive == "reduce_sum" else kind
        outputs = [
            self._weight_gradient(v, self.gradient_of[v]) if v in self.gradient_of
            else self._produce(v, f"{name}:y" + (".grad" if backward else ""), "gradient" if backward else "activation")
            for v in sorted(results)
        ]  # fmt: skip
        elements = max(sizes)
        dims = Vector(elements, 0 if kind == "bias_grad" else -(-sum(sizes) // elements))
        self.ops.append(Op(name, phase, kind, dims, inputs, tuple(outputs), param))

    def _read_after(self, inside: set[int], members: set[int]) -> set[int]:
        """Variables of `inside` that another equation or the caller reads, seen through views."""
        if not hasattr(self, "readers"):
            self.readers: dict[int, list[int]] = {}
            for equation in self.program.equations:
                for v in equation.reads:
                    self.readers.setdefault(v, []).append(equation.index)
            self.results = set(self.program.outvars)
        found = set()
        for v in inside:
            waiting, seen = [v], set()
            while waiting:
                w = waiting.pop()
                if w in seen:
                    continue
                seen.add(w)
                for index in self.readers.get(w, ()):
                    equation = self.program.equations[index]
                    if equation.primitive in VIEWS or self._only_repeats(equation):
                        waiting += equation.writes
                    elif index not in members:
                        found.add(v)
                if w in self.results or w in self.gradient_of:
                    found.add(v)
        return found


def _gemm(equation: Equation, a: Shape, b: Shape) -> tuple[int, int, int, int]:
    """(batch, M, N, K) of a dot_general."""
    (contract_a, contract_b), (batch_a, batch_b) = equation.params["dimension_numbers"]
    k, batch = count(a[i] for i in contract_a), count(a[i] for i in batch_a)
    m = count(n for i, n in enumerate(a) if i not in (*contract_a, *batch_a))
    n = count(n for i, n in enumerate(b) if i not in (*contract_b, *batch_b))
    return batch, m, n, k
