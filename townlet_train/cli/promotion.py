"""`townlet-train promotion`: which checkpoint is released, how it came to be, and the way back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from townlet_train.cli.options import JsonOutput
from townlet_train.cli.output import emit
from townlet_train.config.promotion import PROMOTION_DIR, REQUIRED_PASSES
from townlet_train.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from townlet_train.results import PromotionStatusDTO

app = typer.Typer()

SHOWN_HASH = 12  # characters of a hash that a terminal has room for

PromotionDir = Annotated[
    Path, typer.Option("--promotion-dir", help="Directory of the ledger and the releases.")
]


@app.command()
def status(promotion_dir: PromotionDir = PROMOTION_DIR, json_output: JsonOutput = False) -> int:
    """Say what is released, which candidate is on its way, and what to do next."""
    from townlet_train.services.promotion import PromotionService

    return _show(PromotionService(promotion_dir).status(), json_output)


@app.command()
def history(promotion_dir: PromotionDir = PROMOTION_DIR, json_output: JsonOutput = False) -> int:
    """List everything that happened, oldest first."""
    from townlet_train.services.promotion import PromotionService

    result = PromotionService(promotion_dir).history()
    if not json_output and sys.stdout.isatty():
        events = tuple(
            event.model_copy(update={"sha256": event.sha256 and event.sha256[:SHOWN_HASH]})
            for event in result.events
        )
        result = result.model_copy(update={"events": events})
    return emit(result, json_output=json_output)


@app.command()
def record(
    gate: Annotated[
        str,
        typer.Option(
            "--gate", metavar="FILE", help="What `townlet-train gate --json` printed; - reads it here."
        ),
    ],
    required_passes: Annotated[
        int, typer.Option("--required-passes", min=1, help="PASSes in a row that make a candidate ready.")
    ] = REQUIRED_PASSES,
    promotion_dir: PromotionDir = PROMOTION_DIR,
    json_output: JsonOutput = False,
) -> int:
    """Note a gate's verdict: a PASS on new seeds lengthens the candidate's streak, HOLD and FAIL end it."""
    from townlet_train.services.promotion import PromotionService, read_gate_document

    evidence = read_gate_document(_read(gate), "standard input" if gate == "-" else gate)
    service = PromotionService(promotion_dir, required_passes=required_passes)
    before = service.status().ledger_lines
    result = service.record_evaluation(
        evidence.status,
        evidence.candidate,
        seeds=evidence.seeds,
        release_sha256=evidence.release_sha256,
    )
    if result.ledger_lines == before:
        known = "This verdict is in the ledger already, and nothing was added. Gate the candidate on another block."
        result = result.model_copy(update={"warnings": (*result.warnings, known)})
    return _show(result, json_output)


@app.command()
def promote(
    initial: Annotated[
        Path | None,
        typer.Option(
            "--initial",
            metavar="CHECKPOINT",
            help="Release this as the first, for candidates to be gated against.",
        ),
    ] = None,
    promotion_dir: PromotionDir = PROMOTION_DIR,
    json_output: JsonOutput = False,
) -> int:
    """Release the candidate that is ready; its file must have the bytes that were evaluated."""
    from townlet_train.services.promotion import PromotionService

    service = PromotionService(promotion_dir)
    result = service.promote() if initial is None else service.begin(initial)
    return _show(result, json_output)


@app.command()
def rollback(
    reason: Annotated[str, typer.Option("--reason", help="Why, for those who read the ledger later.")],
    promotion_dir: PromotionDir = PROMOTION_DIR,
    json_output: JsonOutput = False,
) -> int:
    """Restore the very bytes of the release before the current one."""
    from townlet_train.services.promotion import PromotionService

    return _show(PromotionService(promotion_dir).rollback(reason), json_output)


@app.command()
def verify(
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Make state.json and release.zip anew from a ledger that is sound."),
    ] = False,
    promotion_dir: PromotionDir = PROMOTION_DIR,
    json_output: JsonOutput = False,
) -> int:
    """Compare ledger, state and releases; exit code 2 when anything is not as it was written."""
    from townlet_train.services.promotion import PromotionService

    result = PromotionService(promotion_dir).verify(rebuild=rebuild)
    code = emit(result, json_output=json_output)
    return code if result.valid else ExitCode.FAILED


def _show(result: PromotionStatusDTO, json_output: bool) -> int:
    """Show where promotion stands; a table leaves out the first release where it is the current one."""
    if not json_output and result.initial_release == result.current_release:
        result = result.model_copy(update={"initial_release": None})
    return emit(result, json_output=json_output)


def _read(gate: str) -> str:
    if gate == "-":
        return sys.stdin.read()
    try:
        return Path(gate).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{gate} cannot be read: {error.strerror}. Pass what `townlet-train gate --json` printed."
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{gate} is no text. Pass what `townlet-train gate --json` printed.") from error
