"""Image in, ice out: networks, training, simulation and backends; imports nothing of monitor."""
