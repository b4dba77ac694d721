"""Several workers on one run: processes of one machine (`local`), or actors of a Ray cluster (`ray_cluster`).

video_queue   which video comes next and who has it: longest first, on leases
dispatching   the queue's office: hands out videos, takes reports, tells the run's events
working       a worker's side of it, the same for every executor
"""
