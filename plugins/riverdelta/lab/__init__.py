"""The laboratory: data sets, a simulator, and base models to correct."""
