"""Whether a candidate may be released: measured beside the release on unseen seeds, judged with error rates held.

`judge` is a pure function of what was measured; `gate_checkpoints` measures and judges.
"""

from townlet_train.services.gate.blocks import block_name, block_seeds, check_block_unseen, first_block_seed
from townlet_train.services.gate.checkpoints import evaluate_pair, gate_checkpoints, measure
from townlet_train.services.gate.integrity import Inspected, inspect_candidate
from townlet_train.services.gate.judge import judge, judge_all, judge_sequentially, sequential_looks
from townlet_train.services.gate.measured import Measured, read_returns

__all__ = [
    "Inspected",
    "Measured",
    "block_name",
    "block_seeds",
    "check_block_unseen",
    "evaluate_pair",
    "first_block_seed",
    "gate_checkpoints",
    "inspect_candidate",
    "judge",
    "judge_all",
    "judge_sequentially",
    "measure",
    "read_returns",
    "sequential_looks",
]
