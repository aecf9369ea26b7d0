"""The report that a person reads: its content, figures, tables and the HTML page."""
