"""Lab: data sets, a simulator, and base models to correct."""
