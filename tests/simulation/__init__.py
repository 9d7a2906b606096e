"""Deterministic simulation of the whole service: one seed, one process, one course of events.

======== ==========================================================================================
plan     what a seed decides before anything runs: market, symbols, the rate of every kind of trouble
troubles what goes wrong with venues, clocks, disk and power, and for how long
machine  the computer: a disk that fails, lies and loses its power, the journal's files, crash points
life     lives of the collector, one after another, over the same disk, until the end
oracle   what must hold, read from the files with nothing of the product
bugs     faults planted into the product, which must be found
campaign many seeds, counted; and one, told in full
======== ==========================================================================================
"""
