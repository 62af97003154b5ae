"""Who does many independent pieces of work: processes of this machine, or a cluster; and the folder that keeps what
they found.

Both take the same call, `run(work, jobs)`: a function that can be pickled and a sequence of jobs that can be too. They
yield (position of the job, what it gave) as the jobs end, in whatever order that is. A job that ends without an answer
(its process died, its worker cannot run it) gives a CoflexError as a value; the others go on. Several calls within one
`with` go to the same processes.
"""
