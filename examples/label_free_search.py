"""Search without a label: four configurations of NMCE on handwritten digits, chosen by how far their seeds agree.

The labels that the digits have are only looked at in the end, to see what that choice was worth.
"""

from __future__ import annotations

import raymc


def progress(study: raymc.Study, trial: raymc.Trial) -> None:
    """What a callback sees of each trial that has ended; `study.stop()` would end the search here."""
    print(f"trial {trial.number}: {trial.state}, score {trial.score}, {dict(trial.params)}")


def main() -> None:
    study = raymc.run_study(
        "nmce_digits_label_free",
        trials=4,
        seeds=2,
        overrides={"n_samples": 600, "finetune.epochs": 4},  # a third of the digits, to end in a minute
        name="label-free-example",
        resume="auto",
        callbacks=[progress],
    )
    print("winner:", study.best_params)
    fresh = study.confirmation
    best = fresh.groupby("trial")["acc"].agg(["mean", "std", "min"])
    print("ACC on fresh seeds, which nothing was chosen by:\n", best)
    print("report:", study.report)


if __name__ == "__main__":  # Ray's workers import this file
    main()
