"""What a study compiles at its first use of an installation: each loop once, into numba's cache.

The demo does it beside its first stages. Later stages then load what otherwise each of their processes would compile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mtdlr.survival import Survival


def lasso() -> Callable[[], object]:
    """A Lasso path with cross-validation, as the signature stage fits it."""
    from mtdlr.stats import Penalties, cross_validate_lasso

    x, surv = _cohort(40, 12)
    return lambda: cross_validate_lasso(x, surv, n_folds=3, penalties=Penalties(n=5))


def cox() -> Callable[[], object]:
    """A Cox model."""
    from mtdlr.stats import fit_cox

    x, surv = _cohort(60, 3)
    return lambda: fit_cox(x, surv)


def bootstrap() -> Callable[[], object]:
    """Validation and calibration by the bootstrap."""
    from mtdlr.stats import calibrate_bootstrap, validate_bootstrap

    x, surv = _cohort(60, 3)
    return lambda: (validate_bootstrap(x, surv, n_resamples=3), calibrate_bootstrap(x, surv, 36.0, n_resamples=3))


def fisher() -> Callable[[], object]:
    """Fisher's exact test of a table."""
    from mtdlr.stats import fisher as test

    return lambda: test([[8, 2, 5], [1, 5, 9]])


def tests() -> Callable[[], object]:
    """What tables and report test: two C, Firth's fit, proportional hazards."""
    from mtdlr.stats import compare_concordance, firth_cox, fit_cox, proportional_hazards_test

    x, surv = _cohort(60, 3)
    return lambda: (compare_concordance(x[:, 0], x[:, 1], surv), firth_cox(x, surv),
                    proportional_hazards_test(fit_cox(x, surv), x, surv))


def features() -> Callable[[], object]:
    """The paper's 1456 features, of PET and CT: in single and in double precision."""
    from mtdlr.texture import extract, paper1456

    image = np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32) * 40.0
    mask = np.zeros(image.shape, dtype=bool)
    mask[4:16, 5:15, 3:17] = True
    return lambda: [extract(one, mask, (3.0, 3.0, 3.0), profile=paper1456(25.0))
                    for one in (image, image.astype(np.float64))]


LOOPS: dict[str, Callable[[], Callable[[], object]]] = {
    "features": features, "lasso": lasso, "bootstrap": bootstrap, "cox": cox, "fisher": fisher, "tests": tests}
"""Work by name, in the order in which a run needs it: each makes its arrays and returns what to call."""


def compile_loops() -> None:
    """Compile everything of `LOOPS` that is not in the cache: about a minute at first, seconds later."""
    for ready in LOOPS.values():
        ready()()


def _cohort(n: int, p: int) -> tuple[NDArray[np.float64], Survival]:
    """(n, p) features and follow-up of n patients, the first feature a risk."""
    from mtdlr.survival import Survival

    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, p))
    time = rng.exponential(40.0 * np.exp(-x[:, 0]))
    return x, Survival(np.minimum(time, 80.0), time < 80.0)
