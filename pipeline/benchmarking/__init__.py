"""How fast a run is, how fast it could be, and how long one will take.

benchmark.py     every stage alone, then all of them together: a report
    workload.py      what a set of videos asks for: frames, pixels, segments
    heads.py         the first seconds of videos, for measurements that must not take long
    bare_stages.py   one stage alone, on inputs that are ready
    end_to_end.py    the run itself, into a store that is thrown away
    resources.py     processor time and peak memory of a run's processes
    circumstances.py when and where, and what else ran
report.py        the ratios, and the report as JSON
chart.py         the report as a picture
one_by_one.py    streams each in a run of its own, against all in one
forecast.py      what a run will take, from probing its videos and a short benchmark
forecast_file.py keeps a forecast until its run can say how far off it was
"""
