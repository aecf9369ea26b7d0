"""What makes OOD numbers misleading: duplicates, shortcuts, known classes in OOD sets, a failed control."""
