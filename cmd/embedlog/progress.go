package main

import (
	"time"

	"github.com/schollz/progressbar/v3"
)

// bar shows how far long work is, on stderr when that is a terminal. A nil bar
// shows nothing.
type bar struct {
	b     *progressbar.ProgressBar
	total int64
}

// bar begins one over total bytes; -1 is not known.
func (a *app) bar(total int64, what string) *bar {
	if a.quiet || !isTerminal(a.stderr) || isTerminal(a.stdin) && total < 0 {
		return nil
	}
	return &bar{total: total, b: progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(a.stderr),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true),
		progressbar.OptionEnableColorCodes(false),
		progressbar.OptionSetWidth(20),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)}
}

func (b *bar) add(n int64) {
	if b != nil {
		_ = b.b.Add64(n) // a terminal that does not take it is no reason to fail
	}
}

// set moves the bar to done of total bytes and says what is being done.
func (b *bar) set(what string, done, total int64) {
	if b == nil {
		return
	}
	if total > 0 && total != b.total {
		b.total = total
		b.b.ChangeMax64(total)
	}
	b.b.Describe(what)
	_ = b.b.Set64(done)
}

// done takes the bar off the screen. It may be called twice.
func (b *bar) done() {
	if b != nil {
		_ = b.b.Clear()
	}
}
