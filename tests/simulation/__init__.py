"""Deterministic simulation of the whole service: one seed, one process, one course of events.

================ ========================================================================================
plan             what a seed decides before anything runs: market, symbols, the rate of every trouble
record           what the venues' REST records lack for good, or say otherwise
ways             how a venue is troubled: knobs that are turned, frames and answers that are spoiled
venue_troubles   what goes wrong with venues
machine_troubles what goes wrong with clocks, disk and power
troubles         all of it, each at its rate, until there is none any more
machine          the computer: a disk that fails, lies and loses its power, the journal's files, crash points
life             lives of the collector, one after another, over the same disk, until the end
losses           what happens to sealed days: cuts in the midst of sealing, ledgers and files that are lost
days             a machine's days, looked at as they are sealed and opened
sealed           what must hold of sealed days
stored           what is on disk, read with nothing of the product
oracle           what must hold: each minute, each gap, each series' beginning
folds            what must hold of aggregates
revisions        what must hold of minutes of which two things were said
views            what the audit and the reader must see of it
followers        followers of the change feed beside the collector, and what must hold of what they are told
day_misreadings  faults planted into the sealing of days
feed_misreadings faults planted into the change feed
torn             what a cut leaves of the journal
outcome          what became of a seed
misreadings      faults planted into the product: what reality does, misunderstood
bugs             all faults that are planted, which must be found
campaign         many seeds, counted; and one, told in full
================ ========================================================================================
"""
