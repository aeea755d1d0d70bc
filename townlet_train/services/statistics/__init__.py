"""What measurements are worth: intervals and tests that hold what they promise, seeded, without scipy."""

from townlet_train.services.statistics.multiplicity import holm_levels
from townlet_train.services.statistics.runs import (
    improvement_probability,
    stratified_interval,
    stratified_resamples,
)
from townlet_train.services.statistics.samples import (
    RESAMPLES,
    Interval,
    PairedDifference,
    Sample,
    bootstrap_interval,
    iqm,
    paired_difference,
)
from townlet_train.services.statistics.sequential import anytime_critical_value, sign_e_value
from townlet_train.services.statistics.studentised import (
    Estimate,
    Studentised,
    cvar,
    cvar_difference,
    iqm_estimate,
    mean_estimate,
    resample_indices,
    student_cdf,
    student_quantile,
    studentise,
)

__all__ = [
    "RESAMPLES",
    "Estimate",
    "Interval",
    "PairedDifference",
    "Sample",
    "Studentised",
    "anytime_critical_value",
    "bootstrap_interval",
    "cvar",
    "cvar_difference",
    "holm_levels",
    "improvement_probability",
    "iqm",
    "iqm_estimate",
    "mean_estimate",
    "paired_difference",
    "resample_indices",
    "sign_e_value",
    "stratified_interval",
    "stratified_resamples",
    "student_cdf",
    "student_quantile",
    "studentise",
]
