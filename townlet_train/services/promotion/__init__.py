"""Promotion on disk: which checkpoint is released, how it came to be, and the way back.

    ledger.jsonl     one line for everything that happened, each holding the sha256 of the line before: the truth
    state.json       what the ledger comes to, and the hash of its last line
    releases/        the bytes of everything that was ever released, by sha256
    release.zip      the current release
    baselines.json   what anneals were compared with, by dataset label

A command first stages what needs room, then appends its line, which is the moment it has happened, then renames what it
staged. Killed anywhere, the next command finishes what a line says, or cuts off half a line (`folder.py`).
"""

from townlet_train.results.promotion import PromotionStatus
from townlet_train.services.promotion.baselines import load_baselines, save_baselines
from townlet_train.services.promotion.folder import forget_promotion
from townlet_train.services.promotion.gate_document import GateEvidence, gate_evidence, read_gate_document
from townlet_train.services.promotion.protocol import PromotionCandidate, PromotionServiceAdapter
from townlet_train.services.promotion.service import PromotionService

__all__ = [
    "GateEvidence",
    "PromotionCandidate",
    "PromotionService",
    "PromotionServiceAdapter",
    "PromotionStatus",
    "forget_promotion",
    "gate_evidence",
    "load_baselines",
    "read_gate_document",
    "save_baselines",
]
