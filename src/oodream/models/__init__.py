"""Networks: built-in, external and serialized ones, classifiers on disk, and passes of a network over image
sets.
"""
