"""Data sets: public data in the publishers' own formats."""
