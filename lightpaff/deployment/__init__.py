"""Exported models: made from a student, checked, measured, and used without torch."""
