"""A guard over HTTP: bodies and pictures within limits, passes of several requests, metrics, a graceful stop.

It needs the extra `serve`. No picture is written to disk.
"""
