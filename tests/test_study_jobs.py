"""The processes of a study: what they are told, what they leave, and how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from plugin_distributions import install

from townlet_train.config import RunConfig
from townlet_train.registry import PluginPolicy
from townlet_train.study.cells import Job


def job_in(folder: Path, **rest: object) -> Job:
    """The smallest thing a study does: four episodes of chance and four of the expert."""
    told = {
        "kind": "scale",
        "name": "scale",
        "config": RunConfig.model_validate({"env": "CartPole-v1"}),
        "plugins": PluginPolicy(),
        "said": {"stage_episodes": 4},
        "timesteps": 100,
        "folder": folder,
    }
    return Job.model_validate(told | rest)


def test_a_process_of_a_study_loads_the_plugins_that_its_study_may_load(tmp_path: Path) -> None:
    install(tmp_path, "broken-dist", "raise ValueError('no such luck')\n")
    said = {}
    for name, policy in {
        "strict": PluginPolicy(strict=True),
        "denied": PluginPolicy(strict=True, denied=frozenset({"broken-dist"})),
    }.items():
        (tmp_path / "job.json").write_text(job_in(tmp_path, plugins=policy).model_dump_json())
        found = subprocess.run(
            [sys.executable, "-m", "townlet_train.study.worker", "job.json", f"{name}.json"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
            capture_output=True,
            text=True,
            timeout=120,
        )
        said[name] = found.returncode, found.stderr
    assert said["strict"][0] == 2
    assert "Plugin 'broken_dist' of broken-dist 1.2: ValueError: no such luck" in said["strict"][1]
    assert said["denied"] == (0, "")
    assert json.loads((tmp_path / "denied.json").read_text())["expert"] > 100
