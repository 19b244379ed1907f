"""The corrections, one file each; `base` has their contract."""
