"""Graphs: reading a base model, splicing the corrections into it, and proving that the two sides agree."""
