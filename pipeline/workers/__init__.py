"""Runs with several workers: processes of this machine (`local_pool`) or actors of a Ray cluster (`ray_workers`).

queue          which video is processed next, and by which worker: longest first, with leases
coordinator    assigns videos to workers, receives their reports, collects the events of the run
worker         processes videos: networks, decoders and a store writer in one process
remote_worker  main function of a worker process, the same for every executor
local_pool     worker processes of this machine
ray_workers    workers as actors of a Ray cluster
ray_address    checks whether a Ray cluster can be reached
"""
