"""How memory is measured: the peak of what is resident, above what was there before; what an optimiser holds."""

import gc
from collections.abc import Callable
from pathlib import Path

from torch.distributed.tensor import DTensor

from cineray.training.optim import SubjectAdamW


def reset_peak() -> int:
    """Forget the largest resident size so far; the present one, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident()


def resident() -> int:
    """Resident size, in bytes."""
    return _status("VmRSS")


def peak() -> int:
    """Largest resident size since `reset_peak`, in bytes."""
    return _status("VmHWM")


def peak_extra_bytes(work: Callable[[], object]) -> int:
    """What some work took at its peak."""
    before = reset_peak()
    work()
    return peak() - before


def moment_bytes() -> int:
    """Moments on this rank, of every optimiser in this process."""
    optimizers = [x for x in gc.get_objects() if type(x) is SubjectAdamW]
    tensors = [x for optimizer in optimizers for state in optimizer.state.values() for x in state.values()]
    local = [x.to_local() if isinstance(x, DTensor) else x for x in tensors]
    return sum({x.data_ptr(): x.nbytes for x in local}.values())


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}; this measurement needs Linux")
