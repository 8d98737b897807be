"""Runs that are hurt in every way and must come out the same: `python -m tests.faults`.

reference   one undisturbed run for each of ZeRO 0, 1 and 3, on a cluster of two nodes
kills       worker, node and driver killed at random moments, in every phase and stage: 27 kills
uploads     worker and driver killed while a checkpoint is under way into the store, and before its commit
s3          an S3 store whose server is killed, whose network is slow, whose requests fail
elastic     2, then 1, then 2 workers: the same losses
damage      checkpoints truncated, changed, removed, replaced by pickles
twice       two drivers of the same name at once, 20 times
sigterm     SIGTERM to the driver and `ray job stop`: nothing is wasted
infeasible  more workers than there is room for
hang        a worker that is stopped
nonfinite   a loss that is no number
sweeps      27 trials against 27 alone; driver killed ten times; trials stopped; a node lost
chain       nearly all of it in one run, as `make test` does it
"""
