"""Where load figures come from: readers of measured tables and a seeded generator."""
