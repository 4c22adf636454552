"""Rules are data that judge facts: their files, the book of them, and the judging."""
