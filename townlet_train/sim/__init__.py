"""The embedded town: needs, queues, rivalry, jobs and chat, many towns at once, compiled with numba.

`layout` names what agents see and do, `state` is everything a town's future depends on. `rules` is one tick, made of
`objects` (who holds what), `ties` (who likes whom), `jobs` and `lives`, on top of `geometry` and `draws`. `observe`
is what agents see of it, `expert` the scripted policy, `feasibility` whether anyone could live there, `kernels` how all
of it is compiled.
"""
