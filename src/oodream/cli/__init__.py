"""Words in, a verb called, words out."""
