from confluent_kafka import Consumer, Producer

SNIPPET
