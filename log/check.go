package log

import (
	"sync"
)

// scratch is memory for decompressed records that nobody keeps.
type scratch struct{ b []byte }

// maxPooledBytes is the largest scratch that is kept for the next batch.
const maxPooledBytes = 1 << 20

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func getScratch() *scratch { return scratches.Get().(*scratch) }

func (s *scratch) put() {
	if cap(s.b) > maxPooledBytes {
		s.b = nil
	}
	scratches.Put(s)
}
