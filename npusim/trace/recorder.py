"""Recorder: turns the stream of framework operations of one step into ops and tensors.

Values are followed by storage, so views, transposes and `detach` are the same value; an in-place
operation makes a new version of it. Storages are held by weak reference: memory stays that of the
step, and an address is never mistaken for that of a storage that has died. Of tensors, only sizes and
storages are asked, so that what a profiler wrote down of them serves as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from npusim.errors import CaptureError
from npusim.graph import Dims, Op, StepGraph, Tensor
from npusim.masks import Mask

if TYPE_CHECKING:
    import torch

# What a value is: `external` came from outside the step and the model, `constant` holds no result of it
# (fresh zeros, random numbers), the others as Tensor.kind.
ROLES = ("activation", "weight", "gradient", "weight_gradient", "external", "constant")


@dataclass(frozen=True)
class Known:
    """A followed value. `name` is '' until an op lists it; `owners` are the parameters it derives from."""

    name: str
    role: str
    owners: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Forward:
    """What the backward operations of one forward operation need to know about it."""

    op: Op
    inputs: tuple[str, ...] = ()
    output: str = ""
    bias: str = ""
    aux: bool = False


@dataclass
class Frame:
    """A module that is being called."""

    path: str
    module: Any
    named: bool = False


class Recorder:
    """Ops and tensors recorded so far, and the names and roles of live values."""

    def __init__(
        self, model: Any, name: str, observe: bool = False, hold: Callable[[Any], Any] | None = None
    ) -> None:  # fmt: skip
        """`hold` makes a weak reference to a storage."""
        self.name = name
        self.observe = observe
        self.ops: list[Op] = []
        self.tensors: dict[str, Tensor] = {}
        self.observed: dict[str, Mask] = {}
        self.frames: list[Frame] = [Frame("", model)]
        self.forward: dict[int, Forward] = {}
        self.canonical: dict[str, str] = {}
        self.flipped: set[str] = set()
        self.unseen: list[str] = []
        self.undecided: dict[int, frozenset[str]] = {}
        self.backward_began = False
        self.cloned_at: int | None = None
        self._known: dict[int, Known] = {}
        self._hold = hold
        self._refs: list[Any] = []
        self._used: dict[str, int] = {}
        self.parameters: dict[str, torch.Size] = {}
        for parameter, value in model.named_parameters():
            self.parameters[parameter] = value.shape
            self.follow(value, Known(parameter, "weight", frozenset((parameter,))))
            if value.grad is not None:
                self.follow(value.grad, Known(f"{parameter}.grad", "weight_gradient", frozenset((parameter,))))
        for buffer, value in model.named_buffers():
            if self.known(value) is None:
                self.follow(value, Known(buffer, "weight", frozenset((buffer,))))

    # --- values

    def known(self, value: torch.Tensor) -> Known | None:
        return self._known.get(value.untyped_storage()._cdata)

    def follow(self, value: torch.Tensor, known: Known) -> None:
        storage = value.untyped_storage()
        if self._hold is not None and storage._cdata not in self._known:
            self._refs.append(self._hold(storage))
        self._known[storage._cdata] = known

    def role(self, value: torch.Tensor) -> str:
        known = self.known(value)
        return known.role if known else "external"

    def owners(self, values: Iterable[torch.Tensor]) -> frozenset[str]:
        found = [known.owners for value in values if (known := self.known(value))]
        return frozenset().union(*found)

    def unique(self, base: str) -> str:
        """`base`, or `base@2`, `base@3` ... when it is taken."""
        self._used[base] = self._used.get(base, 0) + 1
        return base if self._used[base] == 1 else f"{base}@{self._used[base]}"

    def use(self, value: torch.Tensor, kind: str, fallback: str, grad_of: str = "") -> str:
        """Name of a value that an op reads; `kind` and `fallback` serve when it has none yet."""
        known = self.known(value)
        if known is None or not known.name:
            role = known.role if known else "external"
            owners = known.owners if known else frozenset()
            known = Known(self.unique(fallback), role, owners)
            self.follow(value, known)
        if known.name not in self.tensors:
            kind = known.role if known.role in ("weight", "weight_gradient", "gradient") else kind
            self._add_tensor(known.name, value, kind, grad_of or self._parameter_of(known))
        return known.name

    def _parameter_of(self, known: Known) -> str:
        return known.name.removesuffix(".grad") if known.role == "weight_gradient" else ""

    def _add_tensor(self, name: str, value: torch.Tensor, kind: str, grad_of: str) -> None:
        if grad_of in self.parameters and grad_of not in self.tensors:
            self._add_tensor(grad_of, value, "weight", "")
        shape = tuple(int(n) for n in self.parameters.get(name, value.shape))
        if grad_of in self.tensors and self.tensors[grad_of].elements == value.numel():
            shape = self.tensors[grad_of].shape
        self.tensors[name] = Tensor(name, shape, kind, str(value.dtype).removeprefix("torch."), grad_of)

    def produce(self, value: torch.Tensor, base: str, role: str, grad_of: str = "", owners: Iterable[str] = ()) -> str:
        """Name of a value that an op writes."""
        name = self.unique(base)
        self.follow(value, Known(name, role, frozenset(owners)))
        self._add_tensor(name, value, role, grad_of)
        return name

    def invent(self, base: str, shape: tuple[int, ...], kind: str, like: str, grad_of: str = "") -> str:
        """Name of a value that the framework keeps inside one of its operations; it has the type of tensor `like`."""
        name = self.unique(base)
        self.tensors[name] = Tensor(name, shape, kind, self.tensors[like].dtype, grad_of)
        return name

    def gradient_of(self, value: torch.Tensor, output: str) -> str:
        """Name of the gradient `value` that the backward of an operation with `output` reads."""
        name = self.use(value, "gradient", f"{output}.grad" if output else "grad", output)
        tensor = self.tensors[name]
        if not tensor.grad_of and output:
            same = self.tensors[output].elements == tensor.elements
            shape = self.tensors[output].shape if same else tensor.shape
            self.tensors[name] = replace(tensor, grad_of=output, shape=shape)
        return name

    def see(self, name: str, value: torch.Tensor) -> None:
        """Keep the zero-bitmap of a value, apart from masks, when asked to observe."""
        if self.observe and value.numel() == self.tensors[name].elements:
            bits = (value.detach() != 0).reshape(self.tensors[name].shape)
            self.observed[name] = Mask.of(bits.cpu().numpy())

    # --- operations

    def op_name(self, kind: str, aux: bool = False) -> str:
        """Module path of the running module; its further operations get the kind appended."""
        frame = self.frames[-1]
        whole = hasattr(frame.module, "weight") or not any(True for _ in frame.module.children())
        if frame.path and whole and not aux and not frame.named:
            frame.named = True
            return self.unique(frame.path)
        return self.unique(f"{frame.path}.{kind}" if frame.path else kind)

    def emit(
        self,
        name: str,
        phase: str,
        kind: str,
        dims: Dims,
        inputs: Iterable[str],
        outputs: Iterable[str],
        param: str = "",
    ) -> Op:
        op = Op(name, phase, kind, dims, tuple(inputs), tuple(outputs), param)
        self.ops.append(op)
        return op

    def emit_owned(
        self,
        name: str,
        phase: str,
        kind: str,
        dims: Dims,
        inputs: Iterable[str],
        outputs: Iterable[str],
        owners: frozenset[str],
    ) -> Op:
        """An op on values that derive from the parameters `owners`. Whose masks apply is known only when
        the whole step is: a mask is computed before the convolution that reads the masked weight."""
        self.undecided[len(self.ops)] = owners
        return self.emit(name, phase, kind, dims, inputs, outputs)

    def weight_name(self, value: torch.Tensor, fallback: str) -> str:
        """Parameter that a convolution or linear op reads: `<module>.weight` even when the framework
        computes it from other parameters (a mask, a parametrisation), so that masks find it."""
        known = self.known(value)
        if known and known.name in self.parameters:
            return known.name
        frame = self.frames[-1]
        if frame.path and hasattr(frame.module, "weight"):
            param = f"{frame.path}.weight"
        elif known and known.owners:
            param = self._sole_owner(known.owners, value)
        elif known and known.name:
            return ""
        else:
            return self.use(value, "weight", f"{fallback}.weight")
        for owner in known.owners if known else ():
            if owner in self.parameters and self.parameters[owner].numel() == value.numel():
                self.canonical[owner] = param
        return param

    def _sole_owner(self, owners: frozenset[str], value: torch.Tensor) -> str:
        fitting = sorted(o for o in owners if o in self.parameters and self.parameters[o].numel() == value.numel())
        named = [o for o in fitting if o.endswith("weight")] or fitting
        if len(named) != 1:
            raise CaptureError(
                f"a weight of shape {tuple(value.shape)} is computed from {', '.join(sorted(owners))} outside a module "
                "that has a 'weight': cannot tell whose masks it takes; compute it inside its nn.Module"
            )
        return named[0]

    def masked_parameter(self, owners: Iterable[str]) -> str:
        """The parameter whose masks apply to a gradient or update that derives from `owners`, or ''."""
        found = {self.canonical.get(owner, owner) for owner in owners}
        weights = {op.param for op in self.ops if op.macs and op.param}
        named = sorted(found & weights) or sorted(found & set(self.parameters))
        return named[0] if len(named) == 1 else ""

    def graph(self, **parts: Any) -> StepGraph:
        for i, owners in self.undecided.items():
            self.ops[i] = replace(self.ops[i], param=self.masked_parameter(owners))
        return StepGraph(self.name, tuple(self.ops), self.tensors, observed=self.observed, **parts)
