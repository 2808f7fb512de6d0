"""One file a peer, set up as its own documentation advises; the page is named at the top of each.

`PACKAGES` are the distributions whose versions are told. `ENVIRONMENT` is of those that cannot share one with the
others: the arguments of `scripts/setup` that make it. Every other name that `workloads.Side` asks for is a function of
a `work.Work`: it imports and loads what it needs, and returns what is timed. That returns nothing, or when it began
(by `time.time()`) where the peer loads its model itself, so that loading counts for nobody.
"""
