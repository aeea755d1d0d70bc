"""A study from plan to table: clones first, then every cell in a process of its own, then what they say together."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from pydantic import ValidationError

from townlet_train.config import RunConfig
from townlet_train.contract import validated_params
from townlet_train.envs.build import spec_of
from townlet_train.errors import DataError, TrainingError, UnknownNameError, UsageError
from townlet_train.files import make_folder, storing, write_json
from townlet_train.policies.experts import Experts, build_expert
from townlet_train.registry import PluginPolicy
from townlet_train.results import StudyCellDTO, StudyDTO
from townlet_train.services.recorded import flatten
from townlet_train.strategies.anneal.params import AnnealParams
from townlet_train.strategies.anneal.schedule import what_suits
from townlet_train.study.cells import Job, episodes_at_the_end, n_cycles
from townlet_train.study.conditions import CONDITIONS, SCRATCH, TRUNKS
from townlet_train.study.pool import log_path, result_path, run_jobs
from townlet_train.study.summary import Scale, rows_of

PLAN, LOCK = "study.json", ".lock"
FIRST_RUN_SEED, SEEDS_APART, MOST_SEEDS = 500_000, 1000, 500  # demonstrations of two runs share no seed
DECIDED = ("clone", "bc_manifest", "schedule", "timesteps", "gate", "promotion_dir")
logger = logging.getLogger(__name__)


class Study(NamedTuple):
    """What is to be compared, and where it is left."""

    config: RunConfig
    said: Mapping[str, Any]  # of anneal
    seeds: range
    conditions: tuple[str, ...]
    trunks: tuple[str, ...]
    timesteps: int
    root: Path
    plugins: PluginPolicy  # which may load in its processes

    def document(self) -> dict[str, Any]:
        """What cells of one study have in common."""
        config = self.config.model_copy(update={"seed": 0}).model_dump(mode="json")
        return {"config": config, "anneal": dict(self.said), "timesteps": self.timesteps}

    def job(self, kind: Any, name: str, *, seed: int = 0, folder: Path | None = None, **rest: Any) -> Job:
        """A job of this study; everything random in it comes from its training seed."""
        config = self.config.model_copy(update={"seed": FIRST_RUN_SEED + SEEDS_APART * seed})
        return Job(
            kind=kind,
            name=name,
            config=config,
            plugins=self.plugins,
            said=dict(self.said),
            timesteps=self.timesteps,
            folder=folder or self.root,
            seed=seed,
            **rest,
        )


def plan_study(
    config: RunConfig,
    said: Mapping[str, Any],
    *,
    seeds: range,
    conditions: Sequence[str],
    trunks: Sequence[str],
    timesteps: int | None,
    root: Path,
    experts: Experts,
    plugins: PluginPolicy,
) -> Study:
    """A study that can begin.

    Raises:
        UnknownNameError: there is no condition, trunk or environment of that name.
        UsageError: nobody demonstrates there, or a param is said that the conditions decide.
    """
    check_names("condition", conditions, CONDITIONS)
    check_names("trunk", trunks, TRUNKS)
    if not 0 <= seeds[0] <= seeds[-1] < MOST_SEEDS:
        raise UsageError(
            f"Training seeds go from 0 to {MOST_SEEDS - 1}, {seeds[0]} to {seeds[-1]} were asked for."
        )
    decided = next((name for name in DECIDED if name in said), None)
    if decided is not None:
        raise UsageError(f"A study decides anneal.{decided} itself. Leave it out.")
    build_expert(spec_of(config), experts)
    params = validated_params(AnnealParams, said, "anneal")
    timesteps = timesteps or what_suits(config.env, params).timesteps
    return Study(config, said, seeds, tuple(conditions), tuple(trunks), timesteps, root, plugins)


def check_names(kind: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raise `UsageError` where there is no name, `UnknownNameError` for the first that is not known."""
    if not names:
        raise UsageError(f"Name at least one {kind}: {', '.join(known)}.")
    for name in names:
        if name not in known:
            raise UnknownNameError(kind, name, known)


def run_study(
    study: Study,
    *,
    n_at_once: int,
    resume: bool,
    report: Callable[[int, int], None],
) -> StudyDTO:
    """Run what has not been run, then summarise; `report` hears of cells done and to do, and may raise to stop.

    Raises:
        UsageError: another study is there or at work there; one not to be gone on with; or none, and one was to be.
        TrainingError: a cell failed; the others are done by then.
    """
    if resume and not (study.root / PLAN).exists():
        raise UsageError(f"{study.root} holds no study to go on with. Leave --resume out to begin one there.")
    with _held(study.root):
        return _run(study, n_at_once=n_at_once, resume=resume, report=report)


@contextmanager
def _held(root: Path) -> Iterator[None]:
    """Nobody else runs a study in the directory meanwhile."""
    make_folder(root)
    lock = FileLock(root / LOCK)
    try:
        with storing(root / LOCK):
            lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError(
            f"A study is going on in {root}. Wait for it or choose another directory."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _run(study: Study, *, n_at_once: int, resume: bool, report: Callable[[int, int], None]) -> StudyDTO:
    _claim(study, resume)
    n_cells = len(study.seeds) * len(study.conditions) * len(study.trunks)
    n_done = 0

    def told(job: Job, seconds: float) -> None:
        nonlocal n_done
        n_done += job.kind == "cell"
        logger.info("%s: %.1f s, %d of %d cells", job.name, seconds, n_done, n_cells)

    def run(jobs: Sequence[Job]) -> None:
        left = [job for job in jobs if not result_path(study.root, job.name).exists()]
        nonlocal n_done
        n_done += sum(job.kind == "cell" for job in jobs) - sum(job.kind == "cell" for job in left)
        failed = run_jobs(left, study.root, n_at_once, on_done=told, watch=lambda: report(n_done, n_cells))
        if failed:
            _refuse(study, failed)

    run([study.job("scale", "scale")])
    scale = _scale(study)
    run(_demonstration_jobs(study))
    cloning = _clone_jobs(study)
    run([*cloning.values()])
    clones = {cloned: Path(_found(study, job.name, "clone")["clone"]) for cloned, job in cloning.items()}
    jobs = _cell_jobs(study, clones)
    run(jobs)
    return summary(study, scale, tuple(_cell(study, job.name) for job in jobs))


def summary(study: Study, scale: Scale, cells: tuple[StudyCellDTO, ...]) -> StudyDTO:
    """Cells, and what they say together."""
    n_budgets = n_cycles(study.config.env, study.said)
    budgets = [study.timesteps * k // n_budgets for k in range(n_budgets + 1)]
    params = AnnealParams(**study.said)
    few = () if len(study.seeds) > 4 else ("With fewer than 5 training seeds, intervals are too narrow.",)
    return StudyDTO(
        env=study.config.env,
        timesteps=study.timesteps,
        seeds=tuple(study.seeds),
        random_return=scale.random,
        expert_return=scale.expert,
        episodes=episodes_at_the_end(study.config, study.said),
        stage_episodes=what_suits(study.config.env, params).stage_episodes,
        output=str(study.root),
        cells=cells,
        rows=rows_of(cells, scale, budgets),
        warnings=few,
    )


def _claim(study: Study, resume: bool) -> None:
    """Say in the directory what is studied there."""
    path, document = study.root / PLAN, json.loads(json.dumps(study.document(), default=str))
    if path.exists():
        if not resume:
            raise UsageError(
                f"{study.root} holds a study already. Go on with --resume, or choose another directory."
            )
        before, now = flatten(_read(path)), flatten(document)
        for name in (name for name in {**before, **now} if before.get(name) != now.get(name)):
            raise UsageError(
                f"{path} is of a study with other settings, and cells of both cannot be compared: {name} is "
                f"{before.get(name)} there and {now.get(name)} here. Say the same, or choose another directory."
            )
    write_json(path, document)


def _demonstration_jobs(study: Study) -> list[Job]:
    """One for every seed."""
    return [
        study.job(
            "demonstrations", f"demonstrations_seed{seed}", seed=seed, folder=_demonstrations(study, seed)
        )
        for seed in study.seeds
    ]


def _demonstrations(study: Study, seed: int) -> Path:
    return study.root / "clones" / f"seed{seed}" / "demonstrations"


def _clone_jobs(study: Study) -> dict[tuple[int, str], Job]:
    """One for every seed and trunk of this study."""
    return {
        (seed, trunk): study.job(
            "clone",
            f"clone_{trunk}_seed{seed}",
            seed=seed,
            folder=study.root / "clones" / f"seed{seed}" / trunk,
            trunk=trunk,
            demonstrations=_demonstrations(study, seed),
        )
        for seed in study.seeds
        for trunk in study.trunks
    }


def _cell_jobs(study: Study, clones: Mapping[tuple[int, str], Path]) -> list[Job]:
    """Seed by seed, so that a study that is cut short has whole ones."""
    jobs = []
    for seed in study.seeds:
        for trunk in study.trunks:
            for condition in study.conditions:
                name = f"{condition}_{trunk}_seed{seed}"
                clone = None if condition == SCRATCH else clones[seed, trunk]
                folder = study.root / "runs" / name
                rest = {"condition": condition, "trunk": trunk, "clone": clone}
                jobs.append(study.job("cell", name, seed=seed, folder=folder, **rest))
    return jobs


def _scale(study: Study) -> Scale:
    """What random and the expert earn, which falls are measured in."""
    found = _found(study, "scale", "expert", "random")
    if not found["expert"] > found["random"]:
        raise TrainingError(
            f"The expert earns {found['expert']:.4g} in {study.config.env} and random {found['random']:.4g}, so there "
            f"is nothing to clone. Study an environment whose expert earns more."
        )
    return Scale(found["random"], found["expert"])


def _found(study: Study, name: str, *keys: str) -> dict[str, Any]:
    """What a job left, which has at least those keys."""
    path = result_path(study.root, name)
    found = _read(path)
    for key in keys:
        if key not in found:
            raise _damaged(path, f"it lacks {key!r}")
    return found


def _cell(study: Study, name: str) -> StudyCellDTO:
    found = _found(study, name)
    try:
        return StudyCellDTO.model_validate(found)
    except ValidationError as error:
        raise _damaged(
            result_path(study.root, name), f"{error.error_count()} of its values are wrong"
        ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise _damaged(path, f"it is no JSON ({error})") from error
    if not isinstance(document, dict):
        raise _damaged(path, "it is no JSON object")
    return document


def _damaged(path: Path, how: str) -> DataError:
    again = "Choose another directory." if path.name == PLAN else "Delete it and go on with --resume."
    return DataError(f"{path} is not what a study left there: {how}. {again}")


def _refuse(study: Study, failed: Sequence[Job]) -> None:
    first = log_path(study.root, failed[0].name)
    last = first.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
    raise TrainingError(
        f"{len(failed)} of the study's runs failed, first {failed[0].name}: {last[0]} See {first}; then go on with "
        f"--resume."
    )
