package log

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/vfs"
)

// The running time goes on from run to run; a power cut takes what was not saved, and
// to save it when little has passed writes nothing.
func TestRunningTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		open := func() *Log {
			t.Helper()
			l, err := Open("", &Options{FS: fs, NoLock: true})
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		l := open()
		want := func(least, most time.Duration) {
			t.Helper()
			if d := l.RunningTime(); d < least || d > most {
				t.Errorf("it ran for %v, want %v to %v", d, least, most)
			}
		}
		save := func(most time.Duration) (ops int) {
			t.Helper()
			l.Lock()
			defer l.Unlock()
			before := fs.Ops()
			if err := l.SaveRunningTime(most); err != nil {
				t.Fatal(err)
			}
			return fs.Ops() - before
		}
		time.Sleep(time.Hour)
		if save(2*time.Hour) > 0 || save(time.Hour) == 0 || save(time.Minute) > 0 {
			t.Error("it is not saved when it is due, and only then")
		}
		time.Sleep(time.Minute)
		want(61*time.Minute, 61*time.Minute)
		fs = fs.AfterCrash(vfs.KeepNone)
		_ = l.Close()
		l = open()
		want(time.Hour, time.Hour)
		if save(time.Minute) > 0 {
			t.Error("it is saved again though it was by the run before")
		}
		time.Sleep(time.Hour)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1000 * time.Hour)
		l = open()
		want(2*time.Hour, 2*time.Hour+time.Second)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := l.SaveRunningTime(0); !errors.Is(err, ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	})
}
