"""The embedded town: needs, queues, rivalry, jobs and chat, many towns at once, compiled with numba.

`layout` names what agents see and do, `state` is everything a town's future depends on, `rules` is one tick,
`observe` what agents see of it, `expert` the scripted policy, `feasibility` whether anyone could live there.
"""
