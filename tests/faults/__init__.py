"""What goes wrong on real machines, done on purpose to tiny whole runs. `python -m tests.faults` is the long
form, whose figures stand in docs/reliability.md; the tests here are the short one.
"""
