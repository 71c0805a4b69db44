"""End-point error and time of each flow method against known motion: the warped portrait.

    python benchmarks/flow_truth.py

Six clips of the public-domain portrait (three classes, two seeds), camera noise of one grey level, a lamp
that drifts by 1 % or 5 %; error in pixels of the 140 px face square, mean over its inside, head motion kept.
"""

import time

import numpy as np

from merveil.mer.data.portrait import flow_in_square, portrait_clip
from merveil.mer.features.extract import Settings, extract
from merveil.mer.features.opencv import single_threaded

INSIDE = np.s_[10:-10, 10:-10]


def main() -> None:
    single_threaded()
    print("flow       light  drift   error px (mean, worst clip)   seconds a clip, face search included")
    for drift in (0.01, 0.05):
        clips = [portrait_clip(label, seed, drift=drift) for label in (0, 1, 2) for seed in (1, 2)]
        for method in ("tvl1", "tvl1-quick", "dis"):
            for light in ("flat", "none"):
                settings = Settings(flow=method, light=light, rigid="none")
                errors, started = [], time.perf_counter()
                for frames, onset, apex, truth in clips:
                    made = extract(frames, onset, apex, settings)
                    exact = flow_in_square(truth.flow(onset, apex), made.box, 140)
                    rest = made.flow - exact
                    errors.append(float(np.hypot(rest[..., 0], rest[..., 1])[INSIDE].mean()))
                spent = (time.perf_counter() - started) / len(clips)
                print(
                    f"{method:<10} {light:<6} {drift:4.0%}    {np.mean(errors):.3f}, {max(errors):.3f}"
                    f"                 {spent:.3f}"
                )


if __name__ == "__main__":
    main()
