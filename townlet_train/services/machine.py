"""What a machine offers and what is installed on it, found without importing any of it."""

from __future__ import annotations

import json
import operator
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from townlet_train import __version__
from townlet_train.errors import TORCH_INSTALL
from townlet_train.results import ExtraDTO, MachineDoctorDTO, PluginHealthDTO, TorchDTO

OURS = "townlet-train"
CPUINFO = Path("/proc/cpuinfo")
FEATURES = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "neon", "sve")
FOR_DEVELOPERS = "dev"
SECONDS_FOR_TORCH = 120
SECONDS_FOR_DRIVER = 20
LITTLE_DISK = 1 << 30
ASK_TORCH = """
import json, torch
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
mps = ["mps"] if torch.backends.mps.is_available() else []
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda or torch.version.hip,
                  "threads": torch.get_num_threads(), "devices": gpus + mps}))
"""
_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "==": operator.eq, "!=": operator.ne,
}  # fmt: skip


def examine_machine(folder: Path, plugins: Sequence[PluginHealthDTO]) -> MachineDoctorDTO:
    """What there is, and a warning for what keeps the program from working as installed.

    `folder` is where runs are left; `plugins` come from whoever knows them.
    """
    torch, problem = ask_torch()
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    free, writable = shutil.disk_usage(place).free, _is_writable(place)
    warnings = [
        *([problem] if problem else []),
        *(
            []
            if writable
            else [f"Nothing can be written to {place}. Get the rights, or name another --output-dir."]
        ),
        *(
            [f"{place} has {free / 1e9:.1f} GB free. Make room before long runs."]
            if free < LITTLE_DISK
            else []
        ),
        *(
            f"Plugin {each.plugin!r} of {each.distribution} {each.version}: {each.reason}"
            for each in plugins
            if each.reason and each.status != "disabled"
        ),
    ]
    cpu, flags = _cpu()
    return MachineDoctorDTO(
        healthy=not warnings,
        townlet_train=__version__,
        python=platform.python_version(),
        executable=sys.executable,
        platform=platform.platform(),
        cpu=cpu,
        cpu_features=tuple(name for name in FEATURES if name in flags),
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=_memory(),
        gpus=tuple(_gpus()),
        torch=torch,
        disk_folder=str(place),
        disk_free=free,
        disk_writable=writable,
        extras=tuple(_extras()),
        plugins=tuple(plugins),
        warnings=tuple(warnings),
    )


def ask_torch(code: str = ASK_TORCH) -> tuple[TorchDTO | None, str | None]:
    """Torch as another process finds it, and a sentence when it is installed and does not start."""
    if find_spec("torch") is None:
        return None, None
    try:
        asked = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=SECONDS_FOR_TORCH,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return (
            None,
            f"torch is installed and did not start within {SECONDS_FOR_TORCH} s. Run: {TORCH_INSTALL}",
        )
    if asked.returncode != 0:
        last = (asked.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return None, f"torch is installed and does not start ({last}). Install it again: {TORCH_INSTALL}"
    return TorchDTO.model_validate(json.loads(asked.stdout)), None


def missing_for(needs: Iterable[str], extra: str) -> list[str]:
    """The distributions that are not installed of those that an extra needs, each with extras of its own.

    `needs` are requirements as a distribution's metadata has them.
    """
    missing: list[str] = []
    for requirement in needs:
        named, _, marker = requirement.partition(";")
        if not _applies(marker, extra):
            continue
        match = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?", named)
        if match is None:
            continue
        name, inner = match[1], [each.strip() for each in (match[2] or "").split(",") if each.strip()]
        if not _installed(name):
            missing.append(name)
            continue
        for each in inner:
            missing += missing_for(requires(name) or (), each)
    return list(dict.fromkeys(missing))


def _extras() -> list[ExtraDTO]:
    """Every extra of ours but the developers', each with what it lacks."""
    try:
        names = distribution(OURS).metadata.get_all("Provides-Extra") or []
        needs = requires(OURS) or []
    except PackageNotFoundError:  # run from its sources, without having been installed
        return []
    found = []
    for extra in sorted(set(names) - {FOR_DEVELOPERS}):
        missing = missing_for(needs, extra)
        command = f"pip install '{OURS}[{extra}]'" if missing else None
        found.append(ExtraDTO(extra=extra, present=not missing, missing=tuple(missing), command=command))
    return found


def _applies(marker: str, extra: str) -> bool:
    """Whether a requirement counts for an extra here; one without an extra in its marker does not."""
    clauses = [clause.strip(" ()") for clause in re.split(r"\band\b", marker)]
    facts = {
        "extra": extra,
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "sys_platform": sys.platform,
        "platform_system": platform.system(),
        "platform_machine": platform.machine(),
    }
    if not any(clause.startswith("extra") for clause in clauses):
        return False
    for clause in clauses:
        match = re.fullmatch(r"(\w+)\s*(<=|>=|==|!=|<|>)\s*['\"]([^'\"]*)['\"]", clause)
        if match is None or match[1] not in facts:
            continue
        mine, other = facts[match[1]], match[3]
        if match[1] == "python_version":
            numbers = [tuple(int(part) for part in each.split(".")) for each in (mine, other)]
            holds = _COMPARED[match[2]](*numbers)
        else:
            holds = _COMPARED[match[2]](mine, other)
        if not holds:
            return False
    return True


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _cpu() -> tuple[str | None, set[str]]:
    """The processor's name and instruction sets, as far as the system tells."""
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or None, set()
    fields = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())
    }
    flags = fields.get("flags") or fields.get("Features") or ""
    return fields.get("model name") or platform.processor() or None, set(flags.split())


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _gpus() -> list[str]:
    """Accelerators by name, as the driver's own tool lists them; none where there is no such tool."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        listed = subprocess.run(
            [tool, "--list-gpus"], capture_output=True, text=True, timeout=SECONDS_FOR_DRIVER, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    names = [re.sub(r"^GPU \d+: | \(UUID.*$", "", line) for line in listed.stdout.splitlines()]
    return names if listed.returncode == 0 else []


def _is_writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
