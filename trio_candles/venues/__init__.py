"""What each venue says and how it is asked: one folder a venue, and what all of them share.

======== ===============================================================================
protocol the live feed: limits, events, errors; numbers and times read strictly
history  the REST record: requests, answers, rates, findings, errors
findings what the answers of one question about a window of minutes prove
registry the venues by name
======== ===============================================================================
"""
