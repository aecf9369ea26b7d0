"""What makes OOD numbers lie: duplicates, shortcuts, known classes among the unknown, a control that fails."""
