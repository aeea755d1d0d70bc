"""Tests that may be looked at after every episode: their error is bounded whenever one stops."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from townlet_train.services.statistics.studentised import student_quantile

BETS = np.arange(1, 20) / 20  # shares of the capital, mixed evenly
LARGEST_LOG = 690.0  # e to this is a number yet
TUNED_FOR = 100  # pairs at which the confidence sequence is tightest


def sign_e_value(wins: int, losses: int) -> float:
    """The capital of a gambler who began with 1 and bet on a win each time; ties are no game.

    If a win is no likelier than a loss, whatever came before, the capital is a supermartingale, and the chance that
    it ever reaches 1 / alpha is at most alpha (Ville 1939). Betting the share b of it multiplies it by 1 + b or 1 - b;
    an even mixture of shares bets well at any rate of wins (Waudby-Smith and Ramdas 2024, section 4, on the
    capital process; Ramdas, Grünwald, Vovk and Shafer 2023 on stopping whenever one likes).

    >>> sign_e_value(0, 0), sign_e_value(10, 0) > 20 > sign_e_value(5, 0)
    (1.0, True)
    """
    logs = wins * np.log1p(BETS) + losses * np.log1p(-BETS)
    return float(np.exp(np.minimum(logs, LARGEST_LOG)).mean())


def anytime_critical_value(n: int, alpha: float, freedom: int) -> float:
    """How many standard errors off an estimate's bound is that holds at every n at once, with a chance of 1 - alpha.

    For a mean of n terms of unit variance, the mixture over N(0, rho^2) effects above 0 is a martingale,
    2 (n rho^2 + 1)^(-1/2) exp(x^2 / 2) Phi(x) with x = S rho (n rho^2 + 1)^(-1/2), and Phi(x) >= 1 - exp(-x^2 / 2) / 2.
    It holds for what is asymptotically a mean of independent terms: an asymptotic confidence sequence
    (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024). Few degrees of freedom widen it as they widen Student's.
    """
    wanted = -2 * math.log(2 * alpha)
    rho2 = (wanted + math.log1p(wanted)) / TUNED_FOR
    spread = n * rho2 + 1
    critical = math.sqrt(2 * spread / (n * rho2) * math.log(0.5 + math.sqrt(spread) / (2 * alpha)))
    return critical * student_quantile(1 - alpha, freedom) / NormalDist().inv_cdf(1 - alpha)
