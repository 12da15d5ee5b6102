"""TLS connections: their records, the keys that open them, and their plaintext as streams like others; knows nothing of Kafka."""
