package embedlog

import "fmt"

// Durability says when a produced record is acknowledged, and so what a crash can
// take back of what was acknowledged. Reading, and the order of records, are the
// same with all of them.
type Durability uint8

const (
	// The zero value is the level above: the database's for a topic, Durable for a
	// database.
	unsetDurability Durability = iota
	// Durable acknowledges when the record is on the disk: nothing acknowledged is
	// lost in a power cut. Concurrent callers share a sync. This is the default.
	Durable
	// Interval acknowledges at once and syncs within SyncInterval: a power cut loses
	// what was acknowledged since then, a killed process nothing.
	Interval
	// OS acknowledges at once and leaves the syncing to the operating system, but for
	// a bound of 32 MiB a partition: a power cut loses at most that, a killed process
	// nothing.
	OS
)

var durabilityNames = [...]string{unsetDurability: "", Durable: "durable", Interval: "interval", OS: "os"}

// String is the level's name as in the setting embedlog.durability; empty for the
// zero value.
func (d Durability) String() string {
	if int(d) < len(durabilityNames) {
		return durabilityNames[d]
	}
	return fmt.Sprintf("Durability(%d)", uint8(d))
}
