"""What a person looks at: content, figures, tables and the page."""
