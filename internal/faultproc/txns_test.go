package faultproc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// life runs a child to its end, and says whether it was killed.
func (j *txnJournal) life(s *Spec, kill time.Duration) (killed bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), childTime)
	defer cancel()
	cmd, err := child(ctx, s)
	if err != nil {
		return false, err
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		return false, err
	}
	if kill > 0 {
		timer := time.AfterFunc(kill, func() { cmd.Process.Kill() })
		defer timer.Stop()
	}
	err = cmd.Wait()
	if ctx.Err() != nil || errs.Len() > 0 {
		return false, fmt.Errorf("child hangs or says: %s", errs.Bytes())
	}
	if err := j.read(&out); err != nil {
		return false, err
	}
	var exit *exec.ExitError
	switch {
	case j.ended:
		return false, nil
	case errors.As(err, &exit) && !exit.Exited():
		return true, nil
	}
	return false, fmt.Errorf("child ended with %v, neither killed nor done", err)
}

// Processes with transactions are killed at operations on files, within mapped
// stores and at random times, and again while they recover: every transaction is
// there whole or not at all, with its offset, and those that were committed are.
func TestKillTransactions(t *testing.T) {
	n, all := killPoints(t)
	if n = share(n, 40); all {
		n = 800
	}
	dir := t.TempDir()
	var mu sync.Mutex
	kills, committed := 0, 0
	inParallel(t, n, func(i int) {
		dir := filepath.Join(dir, fmt.Sprint(i))
		defer os.RemoveAll(dir)
		first := Spec{Dir: dir, Work: "txns", Life: 1, Seed: uint64(i), Rounds: 60}
		var after time.Duration
		switch i % 4 {
		case 0:
			after = time.Duration(20000+i*7919%200000) * time.Microsecond
		case 1:
			first.KillStore = int64(1 + i*i*37%4000)
		default:
			first.KillOp = int64(1 + i*101%900)
		}
		second := Spec{Dir: dir, Work: "txns", Life: 2, Seed: uint64(i), Rounds: 10, KillOp: int64(i * 13 % 160)}
		j := &txnJournal{sent: make(map[string]*saidTxn)}
		dead, err := j.life(&first, after)
		again := false
		if err == nil {
			again, err = j.life(&second, 0)
		}
		if err == nil {
			err = j.check(dir)
		}
		if err != nil {
			t.Errorf("%d: %v\nfirst life %+v killed after %v, second life %+v", i, err, first, after, second)
			keep(t, dir, fmt.Sprint("txns-", i))
		}
		mu.Lock()
		defer mu.Unlock()
		committed += j.committed
		for _, k := range []bool{dead, again} {
			if k {
				kills++
			}
		}
	})
	t.Logf("%d trials, %d kills, %d transactions committed, 0 lost, 0 in part", n, kills, committed)
	if kills == 0 {
		t.Error("nobody was killed")
	}
}
