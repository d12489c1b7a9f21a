#include <librdkafka/rdkafka.h>
#include <stdio.h>

int main(void) {
	char err[512];
	fprintf(stderr, "librdkafka %s\n", rd_kafka_version_str());
SNIPPET
	rd_kafka_topic_partition_list_destroy(topics);
	rd_kafka_destroy(consumer);
	rd_kafka_destroy(producer);
	return 0;
}
