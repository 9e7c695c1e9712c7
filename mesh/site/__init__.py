"""The site process: owns a site's nats-server, its Ray connection, its supervisor and its forwarder."""
