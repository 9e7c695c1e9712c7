"""Connections to NATS; the only importer of nats-py."""
