package partition

import (
	"errors"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// What was verified counts until the marker: "begin" and "release" are of a
// verification, "verified" and "plain" batches with and without it, "marker" ends the
// transaction, "other" another producer's.
func TestVerification(t *testing.T) {
	for _, row := range []struct {
		name  string
		steps string
		open  bool // a transaction, at the end
		last  error
	}{
		{"nothing between", "begin verified", true, nil},
		{"the marker between", "begin marker verified", false, ErrInvalidTxnState},
		{"the transaction was open when it was asked for", "plain begin marker verified", false, ErrInvalidTxnState},
		{"still open", "plain begin verified", true, nil},
		{"asked again after the marker", "begin marker begin verified", true, nil},
		{"somebody else's marker", "begin other verified", true, nil},
		{"not verified at all, as a producer of this process", "marker plain", true, nil},
		{"two ask, one is done", "begin begin release marker verified", false, ErrInvalidTxnState},
		{"two transactions", "begin verified marker verified", false, ErrInvalidTxnState},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := openTest(t, vfs.NewMem(), Config{})
			var held []*Verification
			var err error
			seq := int32(0)
			for _, step := range strings.Fields(row.steps) {
				err = nil
				o := &AppendOptions{Producer: &Producer{ID: 7, Sequence: seq, Transactional: true}}
				switch step {
				case "begin":
					held = append(held, p.BeginVerification(7))
				case "release":
					held[0].Release()
					held = held[1:]
				case "marker":
					_, err = p.EndTransaction(t.Context(), 7, 0, true, 0, false)
				case "other":
					_, err = p.EndTransaction(t.Context(), 8, 0, true, 0, false)
				case "verified":
					o.Producer.Verified = held[len(held)-1]
					fallthrough
				case "plain":
					if _, err = p.Append(t.Context(), []log.Record{{Value: []byte("v")}}, o); err == nil {
						seq++
					}
				}
			}
			if !errors.Is(err, row.last) {
				t.Errorf("the last step: %v, want %v", err, row.last)
			}
			if s, _ := p.ProducerState(7); (s.TxnFirstOffset >= 0) != row.open {
				t.Errorf("first offset of the open transaction %d, want an open one: %v", s.TxnFirstOffset, row.open)
			}
			for _, v := range held {
				v.Release()
			}
			if n := len(p.verifying.ids); n > 0 {
				t.Errorf("%d verifications are left", n)
			}
		})
	}
}
