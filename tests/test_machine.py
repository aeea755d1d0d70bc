"""The machine's doctor tells what is there, and each of its warnings can be brought about."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from townlet_train.cli import main
from townlet_train.errors import ExitCode
from townlet_train.results import PluginHealthDTO
from townlet_train.services import machine
from townlet_train.services.machine import ask_torch, examine_machine, missing_for

CPUINFO = Path("/proc/cpuinfo")
NEEDS = [
    "numpy>=1.26",
    "no-such-thing>=2; extra == 'strange'",
    "numpy<99; extra == 'plain'",
    "pytest[no-such-extra]; extra == 'nested'",
    "gone; python_version < '3.0' and extra == 'old'",
    "gone; python_version >= '3.0' and extra == 'new'",
    "gone; sys_platform == 'amiga' and extra == 'amiga'",
]


@pytest.mark.parametrize(
    ("extra", "missing"),
    [
        ("strange", ["no-such-thing"]), ("plain", []), ("nested", []), ("old", []), ("new", ["gone"]),
        ("amiga", []), ("unheard-of", []),
    ],
)  # fmt: skip
def test_what_an_extra_lacks_is_what_its_markers_ask_for_here(extra: str, missing: list[str]) -> None:
    assert missing_for(NEEDS, extra) == missing


def test_an_extra_of_an_extra_is_looked_into() -> None:
    inner = missing_for(["gymnasium[box2d]>=1.1; extra == 'box2d'"], "box2d")
    assert ("box2d" in inner) == (find_spec("Box2D") is None)


def test_the_doctor_tells_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == (ExitCode.WARNINGS if found["warnings"] else ExitCode.OK)
    assert (found["python"], found["healthy"]) == (platform.python_version(), not found["warnings"])
    assert found["cpus"] >= 1
    assert (found["torch"] is None) == (find_spec("torch") is None)
    if found["torch"] is not None:
        assert found["torch"]["version"] == version("torch")
    for extra in found["extras"]:
        command = f"pip install 'townlet-train[{extra['extra']}]'"
        assert (extra["command"], extra["present"]) == (
            (None, True) if not extra["missing"] else (command, False)
        )
    assert "dev" not in {extra["extra"] for extra in found["extras"]}
    assert "builtin" in {plugin["plugin"] for plugin in found["plugins"]}


@pytest.mark.skipif(not CPUINFO.exists(), reason="the system tells nothing of its processor")
def test_the_cpu_features_are_those_of_the_flags_that_the_system_tells(tmp_path: Path) -> None:
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", CPUINFO.read_text(), re.M)
    assert flags is not None
    known = [name for name in machine.FEATURES if re.search(rf"\b{name}\b", flags[1])]
    assert known, "no instruction set that matters to arrays is known of this processor"
    assert [*examine_machine(tmp_path, []).cpu_features] == known


def test_the_features_of_an_arm_are_read_and_a_name_within_another_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd sve2\n")
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    assert examine_machine(tmp_path, []).cpu_features == ("asimd",)


@pytest.mark.torch
@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not here")
@pytest.mark.parametrize("asked_for", ["1", None])
def test_threads_are_those_that_torch_uses_where_it_starts(
    asked_for: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked_for is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked_for)
    code = "import torch; print(torch.get_num_threads())"
    torchs = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    found, _ = ask_torch()
    assert found is not None
    assert found.threads == int(torchs)
    assert asked_for in (None, torchs.strip())


LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-1f2e)
GPU 1: NVIDIA GeForce RTX 4090 (UUID: GPU-99aa)
"""


@pytest.mark.parametrize(
    ("tool", "gpus"),
    [
        (f"cat <<'END'\n{LISTED}END", ("NVIDIA A100-SXM4-40GB", "NVIDIA GeForce RTX 4090")),
        ("echo 'NVIDIA-SMI has failed because it could not talk to the driver.'; exit 9", ()),
        (None, ()),
    ],
    ids=["two", "no driver", "no tool"],
)
def test_gpus_are_told_by_the_names_that_the_drivers_own_tool_gives_them(
    tool: str | None, gpus: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tool is not None:
        (tmp_path / "nvidia-smi").write_text(f'#!/bin/sh\n[ "$*" = --list-gpus ] || exit 2\n{tool}\n')
        (tmp_path / "nvidia-smi").chmod(0o755)
        (tmp_path / "cat").symlink_to("/bin/cat")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert examine_machine(tmp_path, []).gpus == gpus


@pytest.mark.skipif(find_spec("torch") is None, reason="a torch that does not start has to be installed")
def test_a_torch_that_does_not_start_is_told_with_its_own_words() -> None:
    found, problem = ask_torch("raise ImportError('libcudart.so.12: cannot open shared object file')")
    assert found is None
    assert problem is not None
    assert "does not start (ImportError: libcudart.so.12: cannot open shared object file)" in problem
    assert problem.endswith("pip install 'townlet-train[torch]'")


def test_a_torch_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("torch") is None:
        pytest.skip("a torch that hangs has to be installed")
    monkeypatch.setattr(machine, "SECONDS_FOR_TORCH", 0.2)
    assert ask_torch("import time; time.sleep(60)")[1] is not None


def test_a_broken_plugin_is_a_warning_and_a_disabled_one_is_none(tmp_path: Path) -> None:
    broken = PluginHealthDTO(plugin="x", distribution="d", version="1", status="failed", reason="it raised.")
    off = PluginHealthDTO(plugin="y", distribution="e", version="1", status="disabled", reason="by name.")
    found = examine_machine(tmp_path, [broken, off])
    assert "Plugin 'x' of d 1: it raised." in found.warnings
    assert not any("'y'" in warning for warning in found.warnings)
    assert not found.healthy


def test_the_closest_folder_that_is_there_is_looked_at(tmp_path: Path) -> None:
    found = examine_machine(tmp_path / "not/yet", [])
    assert (found.disk_folder, found.disk_writable) == (str(tmp_path), True)
    assert 0 < found.disk_free <= os.statvfs(tmp_path).f_frsize * os.statvfs(tmp_path).f_blocks


def test_a_folder_that_cannot_be_written_to_is_a_warning() -> None:
    found = examine_machine(Path("/proc"), [])
    assert not found.disk_writable
    assert any(warning.startswith("Nothing can be written to /proc") for warning in found.warnings)


@pytest.mark.parametrize("arguments", [["doctor", "machien"], ["doctor", "--jsn"]])
def test_bad_input_is_refused_in_a_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == ExitCode.USAGE
    assert arguments[1] in capsys.readouterr().err
