"""Speed of a run, its upper bound, and estimates of a run's time, memory and disk space.

benchmark.py        measures each stage in isolation, then the run end to end: a report
    workload.py         frames, pixels and segments of a set of videos
    clipped_videos.py   decodes only the first seconds of videos
    isolated_stages.py  one stage in isolation, with its inputs in memory
    end_to_end.py       the whole run, into a temporary store
    resources.py        processor time and peak memory of a run's processes
    circumstances.py    date, machine and load of a measurement
report.py           ratios, and the report as JSON
estimate.py         estimates a run from the metadata of its videos and a short benchmark
estimate_file.py    saves an estimate, so that the run can report the estimate's error
"""
