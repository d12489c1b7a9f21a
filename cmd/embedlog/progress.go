package main

import (
	"path"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
)

// bar shows how far long work is, on stderr when that is a terminal. A nil bar
// shows nothing.
type bar struct {
	b     *progressbar.ProgressBar
	total int64
	gone  bool
}

// bar begins one over total bytes; -1 is not known.
func (a *app) bar(total int64, what string) *bar {
	if a.quiet || !isTerminal(a.stderr) || isTerminal(a.stdin) && total < 0 {
		return nil
	}
	return &bar{total: total, b: progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(a.stderr),
		progressbar.OptionSetDescription(shorten(what)),
		progressbar.OptionShowBytes(true),
		progressbar.OptionEnableColorCodes(false),
		progressbar.OptionSetWidth(barWidth),
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
	b.b.Describe(shorten(what))
	_ = b.b.Set64(done)
}

// done takes the bar off the screen. It may be called twice.
func (b *bar) done() {
	if b != nil && !b.gone {
		b.gone = true // what is printed next stands where it was
		_ = b.b.Clear()
	}
}

// A terminal has 80 columns: a longer line would wrap, and not be taken back. The
// library's percent, rate and times take up to 34 of them.
const (
	barWidth = 14
	maxWhat  = 30
)

// shorten makes what is being done fit beside the bar: ids and numbers in a path lose
// their tails, "copy topics/kWqq…/2/0000….log".
func shorten(what string) string {
	elements := strings.Split(what, "/")
	for i, e := range elements {
		ext := path.Ext(e)
		if r := []rune(strings.TrimSuffix(e, ext)); i > 0 && len(r) > len("checkpoint") {
			elements[i] = string(r[:4]) + "…" + ext
		}
	}
	r := []rune(strings.Join(elements, "/"))
	if len(r) > maxWhat {
		return string(r[:maxWhat-1]) + "…"
	}
	return string(r)
}
