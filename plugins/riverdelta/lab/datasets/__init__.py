"""Public data sets in their publishers' own layouts."""
