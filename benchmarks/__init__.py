"""Every speed we claim, measured on the machine at hand: `python -m benchmarks` runs all, `... town` one."""
