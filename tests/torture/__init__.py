"""What a real process, a real disk and a real network do to a collector: killed, cut, frozen, flipped.

No part of the default test run: minutes long, some of it needs root, strace or Linux and says so where it has not.
``python tools/torture.py --help``.

======== =========================================================================================
kills    ``run.py --simulate`` killed by SIGKILL at random moments, started again each time
syscalls a store at work and at its start, killed or refused at every single system call (strace)
powercut a store on a disk image of its own that is copied at a random moment: what had been synced
deaf     exchanges in a process of their own that freeze or fall silent without hanging up
bitrot   single bits flipped in day files and in the journal
evidence a data directory read without the product's reading code, and held against what is true
======== =========================================================================================
"""
