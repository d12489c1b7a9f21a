package main

import "maps"

const (
	noScram    = "the suite's listener asks for no password: kgo-secure is for that"
	oldProduce = "Produce is advertised from version 0, as in Kafka (KAFKA-18659)"
	ownDialer  = "it makes a client with a dialer and TLS, which kgo refuses, and does not look at the error"
)

// kgoDeclared are those of franz-go's tests.
var kgoDeclared = map[string]string{
	"TestIssueProduceBrokerTooOldFailsRecords": oldProduce,
}

// withoutScram adds to them what is for a listener with SCRAM.
func withoutScram() map[string]string {
	all := maps.Clone(kgoDeclared)
	all["TestSCRAMAuth"], all["TestSCRAMAuthBadCredentials"] = noScram, noScram
	return all
}

// kgoNotOverTLS are those of franz-go's tests that cannot run over TLS: they are left out.
var kgoNotOverTLS = map[string]string{
	"TestIssue769": ownDialer,
}

// overTLS adds to them what cannot run over TLS.
func overTLS() map[string]string {
	all := maps.Clone(kgoDeclared)
	maps.Copy(all, kgoNotOverTLS)
	return all
}

// declared are the tests that are skipped, by suite, and why. docs/kafka.md has the
// same list.
var declared = map[string]map[string]string{
	"kgo":               withoutScram(),
	"kgo-chaos":         withoutScram(),
	"kgo-cluster":       withoutScram(),
	"kgo-cluster-short": withoutScram(),
	"kgo-secure":        overTLS(),
}
