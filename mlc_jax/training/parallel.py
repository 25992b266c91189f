"""Running one pure function over all devices: jit over a mesh, or pmap.

Both cut the batch axis into equal, contiguous parts, one per device, in the same order, so a run
sees the same samples in the same order under either.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mlc_jax.errors import ConfigError

AXIS = "data"


class Devices:
    """The devices of a run and the wrapper that drives them.

    Attributes:
      kind: "jit" or "pmap".
      count: number of devices.
      platform: what they are: cpu, gpu, tpu.
    """

    def __init__(self, kind: str, devices: Sequence[jax.Device] | None = None) -> None:
        if kind not in ("jit", "pmap"):
            raise ConfigError(f"config.parallel={kind!r}: choose jit or pmap")
        self.kind = kind
        self._devices = list(devices or jax.devices())
        self.count = len(self._devices)
        self.platform = self._devices[0].platform
        # Flax layers want Auto axes; jax.make_mesh would make Explicit ones.
        self._mesh = jax.make_mesh(
            (self.count,), (AXIS,), axis_types=(AxisType.Auto,), devices=self._devices
        )

    def memory(self) -> int:
        """Bytes that arrays may take: of the machine on a CPU, else of the smallest device.

        What there is, not what is free: the choice made by it must be the same when a run goes on.
        """
        limits = [(device.memory_stats() or {}).get("bytes_limit") for device in self._devices]
        if self.platform != "cpu" and all(limits):
            return min(int(limit) for limit in limits if limit)
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def replicate(self, tree: Any) -> Any:
        """Copies a tree of arrays to every device, once, before the loop."""
        return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec()))

    def wrap(
        self,
        build: Callable[[str | None], Callable[..., Any]],
        batch_axes: tuple[int | None, ...],
        donate: tuple[int, ...] = (),
        *,
        apart: bool = False,
    ) -> Callable[..., Any]:
        """Compiles a function for all devices.

        Args:
          build: gives the pure function; its argument is the name of the mapped axis under pmap and
            None under jit. What the function returns must be the same on every device.
          batch_axes: for each argument, the axis to cut, the same for all its arrays; None for
            arguments that every device gets whole. The axis is padded with zeros to a multiple of
            the number of devices, so a zero must mean padding (a mask that is false).
          donate: arguments whose buffers the results may take over.
          apart: under jit too, each device runs the function on its own part and `build` gets the
            name of the axis: for functions that the compiler cannot cut, such as loops over parts
            of the batch.

        Returns:
          A function of the same arguments, host or device arrays, giving replicated device arrays.
        """
        if self.kind == "jit" and apart and self.count > 1:
            inner = self._jit_apart(build(AXIS), batch_axes)
        elif self.kind == "jit":
            inner = self._jit(build(None), batch_axes, donate)
        else:
            inner = self._pmap(build(AXIS), batch_axes, donate)

        def run(*arguments: Any) -> Any:
            return inner(
                *(
                    argument if axis is None else jax.tree.map(partial(self._pad, axis), argument)
                    for argument, axis in zip(arguments, batch_axes, strict=True)
                )
            )

        return run

    def _jit(
        self,
        function: Callable[..., Any],
        batch_axes: tuple[int | None, ...],
        donate: tuple[int, ...],
    ) -> Callable[..., Any]:
        replicated = NamedSharding(self._mesh, PartitionSpec())
        shardings = tuple(
            replicated
            if axis is None
            else NamedSharding(self._mesh, PartitionSpec(*[None] * axis, AXIS))
            for axis in batch_axes
        )
        return jax.jit(
            function, in_shardings=shardings, out_shardings=replicated, donate_argnums=donate
        )

    def _jit_apart(
        self, function: Callable[..., Any], batch_axes: tuple[int | None, ...]
    ) -> Callable[..., Any]:
        specs = tuple(
            PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, AXIS)
            for axis in batch_axes
        )
        # What is gathered is the same on every device, which the check cannot see.
        mapped = jax.shard_map(
            function, mesh=self._mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False
        )
        return jax.jit(mapped)

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
            return array.reshape(*shape[:axis], *parts, *shape[axis + 1 :])

        def run(*arguments: Any) -> Any:
            return mapped(
                *(
                    argument if axis is None else jax.tree.map(partial(cut, axis), argument)
                    for argument, axis in zip(arguments, batch_axes, strict=True)
                )
            )

        return run

    def _pad(self, axis: int, array: Any) -> Any:
        missing = -array.shape[axis] % self.count
        if missing == 0:
            return array
        return np.pad(array, [(0, missing if a == axis else 0) for a in range(array.ndim)])
