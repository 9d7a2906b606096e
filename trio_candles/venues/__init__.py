"""What each venue says and how it is asked: one folder for each venue, and here what all of them share.

======== ===============================================================================
protocol the live feed: limits, events, errors; numbers and times read strictly
history  the REST record: requests, answers, rates, findings, errors
findings what the answers of one question about a window of minutes prove
listings what a venue lists, how it writes symbols
probes   whether its REST still is as the code assumes
venue    all of that about one venue, as one record
registry the venues by name
======== ===============================================================================

A venue's folder has a module for each: ``feed``, ``history``, ``listing``, ``probes``, and ``answers`` for what its
REST answers are wrapped in; ``VENUE`` in its ``__init__`` bundles them.
"""
