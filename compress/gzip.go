package compress

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/gzip"
)

var (
	gzipReaders = sync.Pool{New: func() any { return new(gzipReader) }}
	gzipWriters [gzip.BestCompression + 1]sync.Pool // by level; 0 is the default
)

type gzipReader struct {
	src bytes.Reader
	zip gzip.Reader
}

// appender is the io.Writer of a slice.
type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}

func encodeGzip(dst, src []byte, level int) ([]byte, error) {
	level = min(max(level, 0), gzip.BestCompression)
	out := &appender{dst}
	w, ok := gzipWriters[level].Get().(*gzip.Writer)
	if !ok {
		l := level
		if l == 0 {
			l = gzip.DefaultCompression
		}
		var err error
		if w, err = gzip.NewWriterLevel(nil, l); err != nil {
			return dst, fmt.Errorf("gzip: %w", err)
		}
	}
	w.Reset(out)
	_, err := w.Write(src)
	if err == nil {
		err = w.Close()
	}
	w.Reset(io.Discard) // do not pin the caller's bytes
	gzipWriters[level].Put(w)
	if err != nil {
		return dst, fmt.Errorf("gzip: %w", err)
	}
	return out.b, nil
}

func decodeGzip(dst, src []byte, limit int) ([]byte, error) {
	r := gzipReaders.Get().(*gzipReader)
	defer gzipReaders.Put(r)
	r.src.Reset(src)
	defer r.src.Reset(nil)
	if err := r.zip.Reset(&r.src); err != nil {
		return dst, corrupt(Gzip, err.Error())
	}
	// The last four bytes are the size of the last member: a good guess, no more.
	// Deflate cannot expand by more than 1032.
	guess := 0
	if n := len(src); n >= 18 {
		guess = int(min(int64(binary.LittleEndian.Uint32(src[n-4:])), int64(n)*1032, int64(limit)))
	}
	start := len(dst)
	dst = slices.Grow(dst, guess)
	for {
		if len(dst) == cap(dst) {
			// Full: perhaps there is no more. A byte aside tells, without growing.
			var one [1]byte
			n, err := io.ReadFull(&r.zip, one[:])
			if err == io.EOF {
				return dst, nil
			}
			if err != nil {
				return dst, corrupt(Gzip, err.Error())
			}
			if len(dst)-start+n > limit {
				return dst, tooLarge(Gzip, limit)
			}
			dst = append(growWithin(dst, start, limit), one[0])
		}
		n, err := r.zip.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if len(dst)-start > limit {
			return dst, tooLarge(Gzip, limit)
		}
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return dst, corrupt(Gzip, err.Error())
		}
	}
}

// growWithin makes room behind dst for more of the limit bytes from start on:
// four times what is there, so that the copies add up to a third.
func growWithin(dst []byte, start, limit int) []byte {
	used := len(dst) - start
	want := min(int64(limit), int64(used)*4+4096)
	if want <= int64(used) {
		return dst
	}
	grown := make([]byte, len(dst), int64(start)+want)
	copy(grown, dst)
	return grown
}
