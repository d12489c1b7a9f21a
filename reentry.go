package embedlog

import (
	"errors"
	"fmt"
	"reflect"
	"runtime"
)

// ErrReentrant says that DB.Close was called from within a function that the database
// calls, and would have waited for itself: a done function of Producer.Send, or a hook
// of a ConsumerConfig. Nothing was done; another goroutine can close it.
var ErrReentrant = errors.New("embedlog: called from within a function that the call would wait for")

// callOut runs a function of the user's that whoever closes the database waits for.
// Its frame on the stack is what Close looks for, and that costs a call nothing: to
// ask for the number of the goroutine would cost more than many a record.
//
//go:noinline
func (db *DB) callOut(f func()) {
	db.out.Add(1)
	defer db.out.Add(-1)
	f()
}

var callOutName = runtime.FuncForPC(reflect.ValueOf((*DB).callOut).Pointer()).Name()

// reentered is ErrReentrant when the caller runs within callOut of this database.
//
// It errs in one case: within a function that another database calls, while this
// one has called one as well. Then the call could have waited.
func (db *DB) reentered() error {
	if db.out.Load() == 0 {
		return nil
	}
	var pcs [64]uintptr
	for skip := 2; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs[:])
		if n == 0 {
			return nil
		}
		frames := runtime.CallersFrames(pcs[:n])
		for {
			frame, more := frames.Next()
			if frame.Function == callOutName {
				return fmt.Errorf("close: %w", ErrReentrant)
			}
			if !more {
				break
			}
		}
	}
}
