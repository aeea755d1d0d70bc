"""Things that act: a policy maps an observation and uniform draws to actions, and nothing else."""
