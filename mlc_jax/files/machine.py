"""What this machine has room for: memory and disk."""

import os
from pathlib import Path

_KERNEL = Path("/proc/meminfo")
_LIMIT = Path("/sys/fs/cgroup/memory.max")


def memory() -> tuple[int, int]:
    """Bytes of memory: all, and what is free or could be freed. A container's limit counts."""
    page = os.sysconf("SC_PAGE_SIZE")
    total, available = (page * os.sysconf(name) for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    if _KERNEL.exists():
        lines = dict(line.split(":", 1) for line in _KERNEL.read_text().splitlines())
        available = int(lines["MemAvailable"].split()[0]) * 1024
    if _LIMIT.exists() and (text := _LIMIT.read_text().strip()).isdecimal():
        used = int((_LIMIT.parent / "memory.current").read_text())
        total, available = min(total, int(text)), min(available, int(text) - used)
    return total, available


def folder_size(folder: Path) -> int:
    """Bytes of the regular files in a folder and the folders in it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
