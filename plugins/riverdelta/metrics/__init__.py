"""Metrics: everything that riverdelta reports to Prometheus.

`prometheus_client` decides at its import whether values live in one process or, with PROMETHEUS_MULTIPROC_DIR set, in files
that all workers share: import this package after the variable is set, as it is in every BentoML worker. With files there is
no Info, no Enum and no removal of labels, so every label here has a fixed, small set of values.
"""
