package main

const (
	noShareGroups = "there are no share groups (KIP-932)"
	oldProduce    = "Produce is advertised from version 0, as in Kafka (KAFKA-18659)"
)

// kgoDeclared are those of franz-go's tests.
var kgoDeclared = map[string]string{
	"TestShareGroupETL":                        noShareGroups,
	"TestShareGroupAckOnClose":                 noShareGroups,
	"TestShareGroupOffsetsAdmin":               noShareGroups,
	"TestIssueProduceBrokerTooOldFailsRecords": oldProduce,
}

// declared are the tests that are skipped, by suite, and why. docs/kafka.md has the
// same list.
var declared = map[string]map[string]string{
	"kgo":        kgoDeclared,
	"kgo-chaos":  kgoDeclared,
	"kgo-secure": kgoDeclared,
}
