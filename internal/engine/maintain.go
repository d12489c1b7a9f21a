package engine

import (
	"context"
	"time"
)

// maintain looks at retention, compaction and the disk cap. It is called every
// Options.MaintenanceInterval.
func (e *Engine) maintain(ctx context.Context, now time.Time) {}

// makeRoom evicts what may go when an append found the database's cap reached. It
// says whether to try again.
func (e *Engine) makeRoom(ctx context.Context, p *Partition) bool { return false }
