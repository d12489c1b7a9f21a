package embedlog

import "github.com/x/embedlog/internal/engine"

// Hooks are functions that are called for what happens, in the goroutine where it
// does: they should be quick, and must not call the database. A nil field costs
// nothing.
//
//	OnProduce   func(topic string, partition int32, records int, bytes int64, d time.Duration, err error)
//	OnFetch     func(topic string, partition int32, batches int, bytes int64, d time.Duration, err error)
//	OnFsync     func(topic string, partition int32, d time.Duration, err error)
//	OnCommit    func(group string, offsets int, d time.Duration, err error)
//	OnRebalance func(group string, epoch int32, members int)
//
// OnProduce counts the bytes of keys and values, or of a batch that came encoded.
// OnFsync is called in whatever goroutine made the sync; concurrent appends share one.
type Hooks = engine.Hooks
