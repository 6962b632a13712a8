"""What a run took, in hours, energy and money, as its summary says it; reads nothing itself."""

from __future__ import annotations

from trainer_client.training.watch.energy import EnergyMeter


def cost_of(ran_s: float, *, gpus: int, price_per_gpu_hour: float | None, meter: EnergyMeter) -> dict[str, object]:
    """Of `ran_s` seconds of this process's steps: `gpu_hours` of all ranks' GPUs, and their `cost` in the price's
    currency, None without a price; `energy_j` of this rank's GPU and this machine's CPUs, and why one is not in it.
    """
    gpu_hours = gpus * ran_s / 3600
    return {
        "gpu_hours": gpu_hours,
        "price_per_gpu_hour": price_per_gpu_hour,
        "cost": None if price_per_gpu_hour is None else gpu_hours * price_per_gpu_hour,
        "energy_j": meter.read(),
        "energy_unread": dict(meter.unread),
    }
