package engine

import "time"

// What the engine holds to, for doors whose clients ask.
const (
	// MaxPartitions is the most that a topic can have.
	MaxPartitions = maxPartitions
	// MaxTxnTimeout is the longest that a transaction may ask for. (transaction.max.timeout.ms)
	MaxTxnTimeout = maxTxnTimeout
	// DefaultSessionTimeout is how long a member that is not Local may be silent when it
	// says nothing else.
	DefaultSessionTimeout = defaultSessionTimeout
	// HeartbeatInterval is how often such a member is to call.
	HeartbeatInterval = defaultHeartbeatInterval
	// UniformAssignor is the name of the one way to assign partitions.
	UniformAssignor = uniformAssignor
)

// DefaultSettings are those of a topic that says nothing itself.
func (e *Engine) DefaultSettings() Settings {
	s, err := e.parseSettings(nil, false)
	if err != nil {
		panic("engine: defaults that Open accepted do not hold: " + err.Error())
	}
	return s
}

// OffsetsRetention is how long a group's offsets are kept when nobody uses them;
// negative is for ever.
func (e *Engine) OffsetsRetention() time.Duration {
	if d := e.options.OffsetsRetention; d != 0 {
		return d
	}
	return defaultOffsetsRetention
}

// MaintenanceInterval is how often retention, compaction and the disk cap are looked
// at; negative is never by itself.
func (e *Engine) MaintenanceInterval() time.Duration {
	if d := e.options.MaintenanceInterval; d != 0 {
		return d
	}
	return defaultMaintenanceInterval
}

// DiskSpace is the size of what the database may grow in, and how much of that is
// free: of the file system, or of the cap where that is less. Where it is not
// known it is -1.
func (e *Engine) DiskSpace() (total, usable int64) {
	total, usable = -1, -1
	if e.ownFS {
		total, usable = diskSpace(e.dir)
	}
	limit, used := e.cap.use()
	if limit == 0 {
		return total, usable
	}
	free := max(limit-used, 0)
	if total < 0 {
		return limit, free
	}
	return min(total, limit), min(usable, free)
}
