package partition

import (
	"context"
	"testing"

	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// A producer's own compression counts where the partition has none of its own and
// does not insist on none.
func TestAppendCompressesAsTheProducerSays(t *testing.T) {
	for _, row := range []struct {
		name string
		cfg  Config
		own  compress.Codec
		want compress.Codec
	}{
		{"nothing said", Config{}, compress.None, compress.None},
		{"producer's", Config{}, compress.LZ4, compress.LZ4},
		{"partition's goes first", Config{Compression: compress.Zstd}, compress.LZ4, compress.Zstd},
		{"partition recompresses", Config{Compression: compress.Zstd, Recompress: true}, compress.LZ4, compress.Zstd},
		{"partition wants none", Config{Recompress: true}, compress.LZ4, compress.None},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := openTest(t, vfs.NewMem(), row.cfg)
			recs := []log.Record{{Value: make([]byte, 2000)}, {Value: make([]byte, 2000)}}
			o := &AppendOptions{Compression: row.own, Producer: &Producer{ID: 7}}
			for i := range 2 { // the second is a repetition
				res, err := p.Append(context.Background(), recs, o)
				if err != nil || res.BaseOffset != 0 || res.Duplicate != (i == 1) {
					t.Fatalf("append %d: %+v, %v", i, res, err)
				}
			}
			got, err := p.Fetch(context.Background(), FetchRequest{})
			if err != nil || len(got.Batches) != 1 {
				t.Fatalf("fetch: %+v, %v", got, err)
			}
			h, err := log.ParseBatchHeader(got.Batches[0])
			if err != nil || h.Attributes.Codec() != row.want {
				t.Errorf("stored with %v, want %v (%v)", h.Attributes.Codec(), row.want, err)
			}
		})
	}
}
