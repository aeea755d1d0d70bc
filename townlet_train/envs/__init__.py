"""Environments: one vector protocol and its adapters.

`from townlet_train.envs import town_v0; town_v0.parallel_env()` gives the town as a PettingZoo ParallelEnv.
"""
