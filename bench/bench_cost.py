"""The table preset x hardware of docs/cluster.md: `check`'s cost function with the steps that bench/RESULTS.md holds.

Nothing is timed here, so a loaded machine changes nothing. `python bench/bench_cost.py` prints the table.
"""

from __future__ import annotations

from mtdlr.cohort.cost import Machine, Size, cost_of
from mtdlr.nets.pace import Pace
from mtdlr.store import duration
from mtdlr.study import Study

CPU_STEP_S, CPU_SCORE_S, CPU_GRID = 0.238, 0.080, 48  # a patient, one thread, width 1 (2026-11-23)
HALF_WIDTH = 0.080 / 0.142  # of a step at width 1 (2026-11-25)
CARD_SAMPLES_S = {"quick": 48.0, "workstation": 48.0, "modern": 42.1, "paper": 46.3}  # H200 (2026-11-28)
SCAN = {"pet": {"shape_zyx": [250, 168, 168], "spacing_zyx_mm": [3.0, 4.0, 4.0]},
        "ct": {"shape_zyx": [250, 512, 512], "spacing_zyx_mm": [3.0, 1.0, 1.0]}}
SHARDS, GPUS = 40, 5


def pace(study: Study, section: str, *, on_card: bool) -> Pace:
    """Seconds of a patient; of a card those of a training step also for scoring, which is less."""
    if on_card:
        return Pace(1.0 / CARD_SAMPLES_S[study.preset], 1.0 / CARD_SAMPLES_S[study.preset], True)
    factor = (study.prepare.size / CPU_GRID) ** 3 * (HALF_WIDTH if getattr(study, section).width < 1 else 1.0)
    return Pace(CPU_STEP_S * factor, CPU_SCORE_S * factor, False)


def main() -> None:
    """Print the table."""
    print("| preset | patients (training) | laptop, 2 cores | one GPU, 8 cores | SLURM, 5 GPUs, 40 shards | disk |")
    print("|---|---|---|---|---|---|")
    for preset in CARD_SAMPLES_S:
        for patients, training in ((100, 59), (886, 522)):
            study, size = Study.of({"preset": preset}), Size(patients, training, [SCAN])
            found = []
            for cores, on_card in ((2, False), (8, True), (1, True)):
                here = study.model_copy(update={"run": study.run.model_copy(update={"workers": cores})})
                found.append(cost_of(here, size, Machine(cores, None),
                                     lambda one, section, card=on_card: pace(one, section, on_card=card)))
            shared = dict(found[2].seconds)
            folds = study.score.n_folds(1)
            slurm = shared["report"] + shared["train"] / min(folds, GPUS) + sum(
                shared[stage] for stage in ("prepare", "score", "radiomics")) / SHARDS
            cells = [f"`{preset}`", f"{patients} ({training})", *(duration(one.total_s) for one in found[:2]),
                     duration(slurm), f"{found[0].disk_gb:.0f} GB"]
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
