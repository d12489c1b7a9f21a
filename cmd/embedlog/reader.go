package main

import (
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// errReaderGone is why a command ends when nobody reads its output any more.
var errReaderGone = errors.New("nobody reads the output")

// lookInterval is how often a command that may have nothing to write for long looks
// whether somebody still reads.
const lookInterval = 200 * time.Millisecond

// whileRead returns a context that ends, with errReaderGone as its cause, when w is a
// pipe or a socket and its other side has been closed. A write would tell, but a
// consumer that has caught up writes nothing, and `consume t | head -1` must end.
// stop ends the watch.
func whileRead(ctx context.Context, w io.Writer) (watched context.Context, stop func()) {
	f, ok := w.(*os.File)
	if !ok {
		return ctx, func() {}
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&(os.ModeNamedPipe|os.ModeSocket) == 0 {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		look := time.NewTicker(lookInterval)
		defer look.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-look.C:
				if readerGone(f) {
					cancel(errReaderGone)
				}
			}
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}
