"""Corrections: one file each; the contract is in `base`."""
