"""The processes of a study: what they are told, what they leave, and how they end."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from plugin_distributions import install

from townlet_train.config import RunConfig
from townlet_train.errors import Interrupted, UsageError
from townlet_train.policies.experts import EXPERTS
from townlet_train.registry import PluginPolicy
from townlet_train.study import pool
from townlet_train.study.cells import Job
from townlet_train.study.pool import log_path, result_path, run_jobs
from townlet_train.study.study import Study, plan_study, run_study


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


def study_in(root: Path, **rest: object) -> Study:
    """A study that nobody has begun."""
    told = {"seeds": range(1, 3), "conditions": ["bc"], "trunks": ["separate"], "timesteps": 100}
    return plan_study(
        RunConfig.model_validate({"env": "CartPole-v1"}),
        {"stage_episodes": 4},
        **told | rest,  # type: ignore[arg-type]  # named above
        root=root,
        experts=EXPERTS,
        plugins=PluginPolicy(),
    )


def test_a_second_study_in_a_directory_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    study = study_in(tmp_path / "study")

    def run_another(done: int, total: int) -> None:
        with pytest.raises(UsageError, match=r"A study is going on in .*study\. Wait for it"):
            run_study(study, n_at_once=1, resume=False, report=lambda done, total: None)
        raise Interrupted("Stopped.")

    for resume in (False, True):  # once stopped, it can be gone on with
        with pytest.raises(Interrupted):
            run_study(study, n_at_once=1, resume=resume, report=run_another)


def test_a_process_of_a_study_loads_the_plugins_that_its_study_may_load(tmp_path: Path) -> None:
    install(tmp_path, "broken-dist", "raise ValueError('no such luck')\n")
    said, (theirs, held) = {}, os.pipe()
    for name, policy in {
        "strict": PluginPolicy(strict=True),
        "denied": PluginPolicy(strict=True, denied=frozenset({"broken-dist"})),
    }.items():
        (tmp_path / "job.json").write_text(job_in(tmp_path, plugins=policy).model_dump_json())
        found = subprocess.run(
            [sys.executable, "-m", "townlet_train.study.worker", "job.json", f"{name}.json"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=120,
        )
        said[name] = found.returncode, found.stderr
    os.close(theirs)
    os.close(held)
    assert said["strict"][0] == 2
    assert "Plugin 'broken_dist' of broken-dist 1.2: ValueError: no such luck" in said["strict"][1]
    assert said["denied"] == (0, "")
    assert json.loads((tmp_path / "denied.json").read_text())["expert"] > 100


def test_a_job_that_fails_is_returned_with_a_log_and_the_others_are_done(tmp_path: Path) -> None:
    nobody = RunConfig.model_validate({"env": "Acrobot-v1"})
    jobs = [job_in(tmp_path, name="lost", config=nobody), job_in(tmp_path, name="found")]
    done = []
    failed = run_jobs(
        jobs, tmp_path, 2, on_done=lambda job, seconds: done.append(job.name), watch=lambda: None
    )
    assert ([job.name for job in failed], done) == (["lost"], ["found"])
    assert "Error: No expert plays 'Acrobot-v1'" in log_path(tmp_path, "lost").read_text()
    assert not result_path(tmp_path, "lost").exists()
    assert json.loads(result_path(tmp_path, "found").read_text())["expert"] > 100


STUDYING = """
import sys
from pathlib import Path
from townlet_train.study.cells import Job
from townlet_train.study.pool import run_jobs

job = Job.model_validate_json(Path(sys.argv[1]).read_bytes())
run_jobs([job], Path(sys.argv[2]), 1, on_done=lambda job, seconds: None, watch=lambda: None)
"""
SLEEPY = """
    import os, time
    from townlet_train.api import hookimpl

    def build(spec):
        with open("PIPE", "w") as pipe:  # for as long as this process lives
            print("there", file=pipe, flush=True)
            time.sleep(600)

    @hookimpl
    def townlet_train_experts():
        return {"Acrobot-v1": build}
"""


def test_a_killed_study_takes_its_processes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, told = tmp_path / "pipe", tmp_path / "job.json"
    os.mkfifo(pipe)
    install(tmp_path, "sleepy-dist", SLEEPY.replace("PIPE", str(pipe)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    told.write_text(
        job_in(tmp_path, config=RunConfig.model_validate({"env": "Acrobot-v1"})).model_dump_json()
    )
    with subprocess.Popen([sys.executable, "-c", STUDYING, told, tmp_path]) as study, pipe.open() as reader:
        assert reader.readline() == "there\n"
        study.kill()
        ended, _, _ = select.select([reader], [], [], 30)
        assert ended, "the process of the job still holds its pipe"
        assert reader.read() == ""


def test_a_study_that_nobody_began_is_not_gone_on_with(tmp_path: Path) -> None:
    study = study_in(tmp_path / "nothing")
    with pytest.raises(UsageError, match=r"nothing holds no study to go on with\. Leave --resume out"):
        run_study(study, n_at_once=1, resume=True, report=lambda done, total: None)
    assert not (tmp_path / "nothing").exists()


DEAF = """
    import signal, subprocess, time
    from townlet_train.api import hookimpl

    def build(spec):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen(["sh", "-c", "exec > PIPE; echo there; exec sleep 600"])
        time.sleep(600)

    @hookimpl
    def townlet_train_experts():
        return {"Acrobot-v1": build}
"""


def test_a_process_that_will_not_stop_is_killed_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    install(tmp_path, "deaf-dist", DEAF.replace("PIPE", str(pipe)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    monkeypatch.setattr(pool, "PATIENCE_SEC", 0.5)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    def stop_once_there() -> None:
        with suppress(BlockingIOError):  # there, and nothing said yet
            if os.read(reader, 100):
                raise Interrupted("Stopped.")

    job = job_in(tmp_path, config=RunConfig.model_validate({"env": "Acrobot-v1"}))
    with pytest.raises(Interrupted):
        run_jobs([job], tmp_path, 1, on_done=lambda job, seconds: None, watch=stop_once_there)
    ended, _, _ = select.select([reader], [], [], 30)
    assert ended, "what the process had started still writes"
    assert os.read(reader, 100) == b""
    os.close(reader)
