"""Replicas: agents running as Ray actors, and the Ray clusters they run on."""
