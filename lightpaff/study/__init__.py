"""Studies: one recipe in several arms and seeds, at equal budgets, in one table and on one page."""
