"""Shell around nats-server: identities, permissions, rendered configuration, the processes, and emulated links.

Nothing here speaks the NATS protocol: servers are reached as processes, through their greeting and their monitor.
"""
