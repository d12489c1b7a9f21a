package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/x/embedlog/internal/sock"
)

const (
	// maxLineBytes leaves room in a request for what stands around a line.
	maxLineBytes = sock.MaxRequestBytes - 1<<20
	// requestBytes is about how much goes into one request: enough that its sync is
	// shared by thousands of lines, little enough that Ctrl-C feels prompt.
	requestBytes = 512 << 10
)

// lineForm is how a line becomes a record.
type lineForm struct {
	json        bool
	fixedKey    bool
	key         string
	separated   bool
	separator   string
	headers     []sock.Header
	partition   int32 // -1: by key
	emptyIsNull bool
}

// record makes a record of a line without its newline. It keeps the line.
func (f *lineForm) record(line []byte) (sock.Record, error) {
	rec := sock.Record{Partition: f.partition, Offset: -1, Epoch: -1, Value: line, Headers: f.headers}
	switch {
	case f.json:
		return parseJSONRecord(line, f.partition)
	case f.fixedKey:
		rec.Key = []byte(f.key)
	case f.separated:
		key, value, ok := bytes.Cut(line, []byte(f.separator))
		if !ok {
			return rec, fmt.Errorf("it has no key separator %q", f.separator)
		}
		rec.Key, rec.Value = key, value
	}
	if f.emptyIsNull && len(rec.Value) == 0 {
		rec.Value = nil
	}
	return rec, nil
}

// lineBatch is records for one request, and why the reading ended behind them.
type lineBatch struct {
	records []sock.Record
	lines   []int64 // the number of each record's line, from 1
	bytes   int64   // of input
	err     error   // io.EOF at the end
}

// readLines reads records and hands them on in batches: when one is full, or when
// the next read might wait. The last batch has an error.
func readLines(in io.Reader, form *lineForm, out chan<- lineBatch, stop <-chan struct{}) {
	r := bufio.NewReaderSize(in, 64<<10)
	var b lineBatch
	size, number := 0, int64(0)
	for b.err == nil {
		var line []byte
		line, b.err = readLine(r)
		if b.err == nil || b.err == io.EOF && len(line) > 0 {
			number++
			b.bytes += int64(len(line)) + 1
			rec, err := form.record(line)
			if err != nil {
				b.err = fmt.Errorf("line %d: %w", number, err)
			} else {
				b.records, b.lines = append(b.records, rec), append(b.lines, number)
				size += rec.Size()
			}
		} else if b.err != io.EOF {
			b.err = fmt.Errorf("line %d: %w", number+1, b.err)
		}
		if b.err == nil && size < requestBytes && r.Buffered() > 0 {
			continue
		}
		select {
		case out <- b:
		case <-stop:
			return
		}
		b, size = lineBatch{err: b.err}, 0
	}
}

// readLine reads up to a newline, which it drops, or to the end. The line is the
// caller's.
func readLine(r *bufio.Reader) ([]byte, error) {
	line := []byte{} // not nil: an empty line is an empty value, and no tombstone
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLineBytes:
			return nil, fmt.Errorf("it is longer than %s", bytesText(maxLineBytes))
		case err == nil:
			return line[:len(line)-1], nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return line, err
		}
	}
}

// unescape reads \t, \n, \r, \0, \\ and \xHH in what was typed.
func unescape(s string) (string, error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, `\`)
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		if after == "" {
			return "", errors.New(`a \ at the end`)
		}
		s = after[1:]
		switch after[0] {
		case 't':
			b.WriteByte('\t')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case '0':
			b.WriteByte(0)
		case '\\':
			b.WriteByte('\\')
		case 'x':
			if len(s) < 2 {
				return "", errors.New(`\x without two digits`)
			}
			n, err := strconv.ParseUint(s[:2], 16, 8)
			if err != nil {
				return "", fmt.Errorf(`\x%s is not a byte`, s[:2])
			}
			b.WriteByte(byte(n))
			s = s[2:]
		default:
			return "", fmt.Errorf(`\%c is not known`, after[0])
		}
	}
}
