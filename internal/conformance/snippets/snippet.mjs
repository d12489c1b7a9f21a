import { Kafka } from 'kafkajs'

SNIPPET
