package partition

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// The request of a lone writer lives in the partition and is used again: what the
// last append left in it must not turn a refusal into an acknowledgement.
func TestEveryAppendAfterFailedSyncFails(t *testing.T) {
	fs := vfs.NewFault(vfs.NewMem())
	p := openTest(t, fs, Config{})
	ctx := context.Background()
	if _, err := p.Append(ctx, record("before"), nil); err != nil {
		t.Fatal(err)
	}
	fs.Add(vfs.Rule{Op: vfs.OpDatasync, Effect: vfs.Fail(nil)})
	if _, err := p.Append(ctx, record("fails"), nil); !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, log.ErrStorageFailed) {
		t.Fatalf("append whose sync fails: %v", err)
	}
	for i := range 5 {
		if res, err := p.Append(ctx, record(fmt.Sprint(i)), nil); !errors.Is(err, log.ErrStorageFailed) {
			t.Errorf("append %d after the failed sync: %+v, %v", i, res, err)
		}
	}
}
