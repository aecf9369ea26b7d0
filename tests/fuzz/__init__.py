"""Hostile input: what each reader makes of damaged and malicious files, and the inputs that failed once."""
