"""Running one pure function over all devices: jit over a mesh, or pmap.

Both cut the batch axis into equal, contiguous parts, one per device, in the same order, so a run
sees the same samples in the same order under either. The devices may belong to several processes,
each of which then needs its own part of a batch only.

Under jit the mesh has an axis of heads as well, as long as their number and that of a process's
devices have a common factor: heads have nothing to say to each other, so those on devices of their
own need no sums over devices. Between programs everything lies whole on every device.
"""

import functools
import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mlc_jax import processes
from mlc_jax.errors import ConfigError

AXIS = "data"
HEADS = "heads"


class Devices:
    """The devices of a run and the wrapper that drives them.

    Attributes:
      kind: "jit" or "pmap".
      count: number of devices, of all processes.
      platform: what they are: cpu, gpu, tpu.
    """

    def __init__(self, kind: str, devices: Sequence[jax.Device] | None = None) -> None:
        if kind not in ("jit", "pmap"):
            raise ConfigError(f"config.parallel={kind!r}: choose jit or pmap")
        self.kind = kind
        # Those of a process side by side, so that its part of a batch is in one piece.
        self._devices = sorted(
            devices or jax.devices(), key=lambda device: (device.process_index, device.id)
        )
        self.count = len(self._devices)
        self.platform = self._devices[0].platform
        mine = [n for n, d in enumerate(self._devices) if d.process_index == jax.process_index()]
        self._mine = slice(mine[0], mine[-1] + 1)
        self._several = len(mine) < self.count
        if len(mine) * len({device.process_index for device in self._devices}) != self.count:
            raise ConfigError(
                f"process {jax.process_index()} has {len(mine)} of {self.count} devices; start all "
                "processes with the same number of devices"
            )
        # The same object wherever arrays are whole, or jit would take them for other arguments.
        self._whole = NamedSharding(self.mesh_of(1), PartitionSpec())

    def own(self) -> "Devices":
        """Those of this process alone, for what it computes by itself."""
        return Devices(self.kind, self._devices[self._mine]) if self._several else self

    def places(self, length: int, heads: int = 1) -> slice:
        """The part of a batch axis of that length that this process's devices work on.

        Args:
          length: of the axis.
          heads: how many heads have such a batch.
        """
        abreast = self.abreast(heads)
        part = -(-length * abreast // self.count)
        first, last = self._mine.start // abreast, self._mine.stop // abreast
        return slice(min(part * first, length), min(part * last, length))

    def abreast(self, heads: int) -> int:
        """Into how many groups of devices heads are cut: of equal size, and within a process."""
        return math.gcd(heads, self._mine.stop - self._mine.start) if self.kind == "jit" else 1

    def mesh_of(self, heads: int) -> Mesh:
        """The devices as [data, heads], cut as `abreast` of that many heads says."""
        # Flax layers want Auto axes; jax.make_mesh would make Explicit ones.
        return Mesh(
            np.array(self._devices).reshape(-1, self.abreast(heads)),
            (AXIS, HEADS),
            axis_types=(AxisType.Auto, AxisType.Auto),
        )

    def memory(self) -> int:
        """Bytes that arrays may take: of the machine, or of the smallest device if that has less.

        What there is, not what is free: the choice made by it must be the same when a run goes on.
        """
        limits = [
            (device.memory_stats() or {}).get("bytes_limit") for device in self._devices[self._mine]
        ]
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if self.platform == "cpu":
            return machine
        # What devices hold passes through the machine's memory.
        return min([machine, *(int(limit) for limit in limits if limit)])

    def replicate(self, tree: Any, *, alike: bool = False) -> Any:
        """Copies a tree of arrays to every device, once, before the loop.

        Args:
          tree: host or device arrays. Of several processes the leader's are taken: another kind of
            processor may have computed other last digits.
          alike: whether every process has the same bytes already, as of a file.
        """
        if not self._several:
            return jax.device_put(tree, self._whole)
        if not alike:
            tree = leaders(tree)
        return jax.tree.map(partial(_placed, self._whole), tree)

    def wrap(
        self,
        build: Callable[[str | None], Callable[..., Any]],
        batch_axes: tuple[int | None, ...],
        head_axes: tuple[Any, ...] | None = None,
        result_heads: Any = None,
        donate: tuple[int, ...] = (),
    ) -> Callable[..., Any]:
        """Compiles a function for all devices.

        Args:
          build: gives the pure function; its argument is the name of the mapped axis under pmap and
            None under jit. What the function returns must be the same on every device.
          batch_axes: for each argument, the axis to cut, the same for all its arrays; None for
            arguments that every device gets whole. The axis is padded with zeros to a multiple of
            the number of devices, so a zero must mean padding (a mask that is false). Of several
            processes each looks at its own `places` of the axis only.
          head_axes: where arrays have an axis of heads, as jax.vmap takes `in_axes`; an int for
            arguments with a batch axis. Without it, each device runs the function on its own part
            of the batch and `build` gets the name of the axis under jit too: for functions that the
            compiler cannot cut, such as loops over parts of the batch.
          result_heads: the same for the result.
          donate: arguments whose buffers the results may take over.

        Returns:
          A function of the same arguments, host or device arrays, giving replicated device arrays.
        """
        if self.kind == "pmap":
            inner = self._pmap(build(AXIS), batch_axes, donate)
        elif head_axes is not None:
            inner = self._jit(build(None), batch_axes, head_axes, result_heads, donate)
        elif self.count > 1:
            inner = self._jit_apart(build(AXIS), batch_axes)
        else:
            inner = jax.jit(build(None), donate_argnums=donate)

        def run(*arguments: Any) -> Any:
            heads = 1 if head_axes is None else _heads_of(arguments, batch_axes, head_axes)
            parts = self.count // self.abreast(heads)
            return inner(
                *(
                    argument if axis is None else jax.tree.map(partial(_pad, axis, parts), argument)
                    for argument, axis in zip(arguments, batch_axes, strict=True)
                )
            )

        return run

    def _jit(
        self,
        function: Callable[..., Any],
        batch_axes: tuple[int | None, ...],
        head_axes: tuple[Any, ...],
        result_heads: Any,
        donate: tuple[int, ...],
    ) -> Callable[..., Any]:
        @functools.cache
        def program(heads: int) -> Callable[..., Any]:
            mesh = self.mesh_of(heads)
            shardings = tuple(
                self._whole if batch is None else _cut(mesh, {head: HEADS, batch: AXIS})
                for batch, head in zip(batch_axes, head_axes, strict=True)
            )

            # What has a batch axis comes in its parts; the rest is cut inside.
            rest = tuple(
                head if batch is None else None
                for batch, head in zip(batch_axes, head_axes, strict=True)
            )

            def by_heads(*arguments: Any) -> Any:
                return _by_heads(mesh, result_heads, function(*_by_heads(mesh, rest, arguments)))

            inner = jax.jit(
                by_heads if mesh.shape[HEADS] > 1 else function,
                in_shardings=shardings,
                out_shardings=self._whole,
                donate_argnums=donate,
            )
            return self._placing(inner, shardings)

        def run(*arguments: Any) -> Any:
            return program(_heads_of(arguments, batch_axes, head_axes))(*arguments)

        return run

    def _placing(
        self, inner: Callable[..., Any], shardings: Sequence[NamedSharding]
    ) -> Callable[..., Any]:
        """`inner` with arguments that are arrays over the devices of all processes."""
        if not self._several:
            return inner

        def run(*arguments: Any) -> Any:
            return inner(
                *(
                    jax.tree.map(partial(_placed, sharding), argument)
                    for argument, sharding in zip(arguments, shardings, strict=True)
                )
            )

        return run

    def _jit_apart(
        self, function: Callable[..., Any], batch_axes: tuple[int | None, ...]
    ) -> Callable[..., Any]:
        specs = tuple(
            PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, AXIS)
            for axis in batch_axes
        )
        # What is gathered is the same on every device, which the check cannot see.
        mapped = jax.shard_map(
            function,
            mesh=self._whole.mesh,
            in_specs=specs,
            out_specs=PartitionSpec(),
            check_vma=False,
        )
        shardings = [NamedSharding(self._whole.mesh, spec) for spec in specs]
        return self._placing(jax.jit(mapped), shardings)

    def _pmap(
        self,
        function: Callable[..., Any],
        batch_axes: tuple[int | None, ...],
        donate: tuple[int, ...],
    ) -> Callable[..., Any]:
        mapped = jax.pmap(
            function,
            axis_name=AXIS,
            in_axes=batch_axes,
            out_axes=None,
            devices=self._devices,
            donate_argnums=donate,
        )

        def cut(axis: int, array: Any) -> Any:
            shape = array.shape
            parts = (self.count, shape[axis] // self.count)
            whole = array.reshape(*shape[:axis], *parts, *shape[axis + 1 :])
            return whole[(slice(None),) * axis + (self._mine,)] if self._several else whole

        def run(*arguments: Any) -> Any:
            return mapped(
                *(
                    argument if axis is None else jax.tree.map(partial(cut, axis), argument)
                    for argument, axis in zip(arguments, batch_axes, strict=True)
                )
            )

        return run


def _pad(axis: int, parts: int, array: Any) -> Any:
    missing = -array.shape[axis] % parts
    if missing == 0:
        return array
    return np.pad(array, [(0, missing if a == axis else 0) for a in range(array.ndim)])


def _heads_of(
    arguments: Sequence[Any], batch_axes: Sequence[int | None], head_axes: Sequence[Any]
) -> int:
    """How many heads there are, by the first argument that is cut."""
    for argument, batch, head in zip(arguments, batch_axes, head_axes, strict=True):
        if batch is not None:
            return int(jax.tree.leaves(argument)[0].shape[head])
    return 1


def _cut(mesh: Mesh, axes: dict[int, str]) -> NamedSharding:
    """Arrays that are cut along the given axes."""
    return NamedSharding(mesh, PartitionSpec(*map(axes.get, range(max(axes) + 1))))


def _by_heads(mesh: Mesh, axes: Any, tree: Any) -> Any:
    """Tells the compiler to cut a tree along its axes of heads, None where there is none."""

    def one(axis: int | None, part: Any) -> Any:
        if axis is None:
            return part
        return jax.lax.with_sharding_constraint(part, _cut(mesh, {axis: HEADS}))

    return jax.tree.map(one, axes, tree, is_leaf=lambda axis: axis is None)


def _placed(sharding: NamedSharding, array: Any) -> jax.Array:
    """A host array, or one of this process's devices, as one over the devices of all processes."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return array
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def leaders(tree: Any) -> Any:
    """A tree of arrays with the leader's values, on every process; host arrays where several are.

    Args:
      tree: of the same shapes and types on all processes.
    """
    if processes.count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    host = [np.asarray(leaf) for leaf in leaves]
    if not processes.leads():
        host = [np.zeros_like(leaf) for leaf in host]
    whole = united(np.concatenate([_bytes_of(leaf) for leaf in host]))
    ends = np.cumsum([leaf.nbytes for leaf in host])
    made = [
        whole[end - leaf.nbytes : end].view(leaf.dtype).reshape(leaf.shape)
        for leaf, end in zip(host, ends, strict=True)
    ]
    return jax.tree.unflatten(structure, made)


def united(array: np.ndarray) -> np.ndarray:
    """An array of which each process has made a part, whole on every process, bit for bit.

    Args:
      array: of the same shape and type on all processes; 0 but for the process's own part.
    """
    if processes.count() == 1:
        return array
    # Every process is a source: the sum of bytes of which all but one are 0.
    summed = multihost_utils.broadcast_one_to_all(_bytes_of(array), is_source=True)
    return np.array(summed).view(array.dtype).reshape(array.shape)


def _bytes_of(array: np.ndarray) -> np.ndarray:
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
