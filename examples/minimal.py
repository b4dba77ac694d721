"""Extract the features of a folder of videos, and read them: ``python minimal.py VIDEOS/ features/``."""

import sys

import arabesque

videos, out = sys.argv[1:]
store = arabesque.extract(videos, recipe="starter", out=out)
for video_id in store.video_ids:
    motion = store[video_id]["motion"]
    seconds = motion.end_s[-1] - motion.start_s[0]
    print(f"{video_id}: {motion.values.shape[0]} segments × {motion.values.shape[1]} features over {seconds:.1f} s")
for outcome in store.outcomes():
    if outcome.kind in ("partial", "failed"):
        print(f"{outcome.video_id}, {outcome.stream}: {outcome.kind}: {outcome.reason}")
