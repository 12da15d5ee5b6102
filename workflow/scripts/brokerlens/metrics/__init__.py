"""Metrics and series of one site, from its packets, requests and connections (docs/metrics.md)."""
