"""From packet captures beside Kafka clients and brokers to Parquet, TCP health, Kafka latency and a report."""

__version__ = "0.1.0"
