"""The agent class and what it is handed. Pure: nothing here touches NATS, Ray, disk or the system's clock."""
