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
	// UniformAssignor and RangeAssignor are the names of the ways to assign partitions.
	UniformAssignor = uniformAssignor
	RangeAssignor   = rangeAssignor
	// What groups hold to where options say nothing: see GroupLimits.
	DefaultGroupInitialDelay      = defaultInitialDelay
	DefaultGroupMinSessionTimeout = defaultMinSessionTimeout
	DefaultGroupMaxSessionTimeout = defaultMaxSessionTimeout
	DefaultGroupMaxSize           = defaultGroupMaxSize
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

// GroupLimits are what groups hold to: see Options.GroupInitialDelay and the options
// behind it. A delay that is not positive is none.
func (e *Engine) GroupLimits() (delay, minSession, maxSession time.Duration, members int) {
	l := e.groups.limits
	return max(l.delay, 0), l.minSession, l.maxSession, l.members
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
