package query

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/x/embedlog/internal/vfs"
)

// A checkpoint file is a mark and the rows that it is of, drawn in docs/format.md:
//
//	head     magic, length of the mark, CRC, the mark as JSON
//	blocks   store, rows, length of the keys, length of the values, CRC, keys, values
//	end      a block of no store that says how many blocks came before
//
// Keys and values have their lengths before them. Keys are apart, so that they can be one string. It is whole or it is not used: what it says
// is in the changelogs.
const (
	checkpointMagic = "embedlogviewrows"
	headBytes       = len(checkpointMagic) + 8
	blockHeadBytes  = 20
	endOfBlocks     = 1<<32 - 1
	// blockTarget is how much a block holds before the next one begins.
	blockTarget = 64 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errCheckpoint says that a file is not a whole checkpoint.
var errCheckpoint = errors.New("query: damaged checkpoint")

// checkpointWriter writes a checkpoint.
type checkpointWriter struct {
	f            interface{ Append(p []byte) (int, error) }
	buf          []byte // to be written
	bytes        int64
	blocks       uint32
	keys, values []byte // of the block
	rows         uint32
}

func (w *checkpointWriter) head(m *mark) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	w.buf = append(w.buf, checkpointMagic...)
	w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(len(text)))
	w.buf = binary.BigEndian.AppendUint32(w.buf, crc32.Checksum(text, castagnoli))
	w.buf = append(w.buf, text...)
	return nil
}

// row adds a row to the store's block.
func (w *checkpointWriter) row(store int, key string, row []byte) error {
	w.keys = appendPrefix(w.keys, rawOf(key))
	w.values = appendPrefix(w.values, row)
	w.rows++
	if len(w.keys)+len(w.values) < blockTarget {
		return nil
	}
	return w.block(uint32(store))
}

// block ends a block.
func (w *checkpointWriter) block(store uint32) error {
	at := len(w.buf)
	for _, n := range []uint32{store, w.rows, uint32(len(w.keys)), uint32(len(w.values)), 0} {
		w.buf = binary.BigEndian.AppendUint32(w.buf, n)
	}
	w.buf = append(append(w.buf, w.keys...), w.values...)
	crc := crc32.Update(crc32.Checksum(w.buf[at:at+16], castagnoli), castagnoli, w.buf[at+blockHeadBytes:])
	binary.BigEndian.PutUint32(w.buf[at+16:], crc)
	w.keys, w.values, w.rows = w.keys[:0], w.values[:0], 0
	w.blocks++
	if len(w.buf) < 4*blockTarget {
		return nil
	}
	return w.flush()
}

// endStore ends a store's rows.
func (w *checkpointWriter) endStore(store int) error {
	if w.rows == 0 {
		return nil
	}
	return w.block(uint32(store))
}

// end writes what is left.
func (w *checkpointWriter) end() error {
	w.rows = w.blocks
	if err := w.block(endOfBlocks); err != nil {
		return err
	}
	return w.flush()
}

func (w *checkpointWriter) flush() error {
	n, err := w.f.Append(w.buf)
	w.bytes += int64(n)
	w.buf = w.buf[:0]
	return err
}

// checkpointReader reads a checkpoint, and believes nothing that its checksums do not say.
type checkpointReader struct {
	r    io.Reader
	left int64 // bytes that can come: what is asked for is not more
	mark *mark
}

// block is rows of a store.
type block struct {
	store, rows  uint32
	keys, values []byte
}

func (c *checkpointReader) read(n int64) ([]byte, error) {
	if n > c.left {
		return nil, fmt.Errorf("%w: it ends too early", errCheckpoint)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c.r, b); err != nil {
		return nil, fmt.Errorf("read a checkpoint: %w", err)
	}
	c.left -= n
	return b, nil
}

// openCheckpoint reads the mark.
func openCheckpoint(r io.Reader, size int64) (*checkpointReader, error) {
	c := &checkpointReader{r: r, left: size}
	b, err := c.read(int64(headBytes))
	if err != nil {
		return nil, err
	}
	n := len(checkpointMagic)
	if string(b[:n]) != checkpointMagic {
		return nil, fmt.Errorf("%w: it begins with %q", errCheckpoint, b[:n])
	}
	text, err := c.read(int64(binary.BigEndian.Uint32(b[n:])))
	if err != nil {
		return nil, err
	}
	if crc32.Checksum(text, castagnoli) != binary.BigEndian.Uint32(b[n+4:]) {
		return nil, fmt.Errorf("%w: the checksum of its head differs", errCheckpoint)
	}
	c.mark = new(mark)
	if err := json.Unmarshal(text, c.mark); err != nil {
		return nil, fmt.Errorf("%w: %w", errCheckpoint, err)
	}
	return c, nil
}

// blocks calls f for each block. Without an error the checkpoint was whole.
func (c *checkpointReader) blocks(f func(b block) error) error {
	for n := uint32(0); ; n++ {
		h, err := c.read(blockHeadBytes)
		if err != nil {
			return err
		}
		var b block
		b.store, b.rows = binary.BigEndian.Uint32(h), binary.BigEndian.Uint32(h[4:])
		keys, values := int64(binary.BigEndian.Uint32(h[8:])), int64(binary.BigEndian.Uint32(h[12:]))
		payload, err := c.read(keys + values)
		if err != nil {
			return err
		}
		if crc32.Update(crc32.Checksum(h[:16], castagnoli), castagnoli, payload) != binary.BigEndian.Uint32(h[16:]) {
			return fmt.Errorf("%w: the checksum of block %d differs", errCheckpoint, n)
		}
		if b.store == endOfBlocks {
			if b.rows != n || keys+values != 0 || c.left != 0 {
				return fmt.Errorf("%w: it ends after %d blocks, and says %d", errCheckpoint, n, b.rows)
			}
			return nil
		}
		b.keys, b.values = payload[:keys:keys], payload[keys:]
		if err := f(b); err != nil {
			return err
		}
	}
}

// each calls f for the block's rows. The keys are parts of one string, the rows of the block.
func (b *block) each(f func(key string, row []byte) error) error {
	keys, values := string(b.keys), b.values
	at := 0
	for range b.rows {
		n, size := binary.Uvarint(b.keys[at:])
		if size <= 0 || n > uint64(len(keys)-at-size) {
			return fmt.Errorf("%w: a block's keys", errCheckpoint)
		}
		key := keys[at+size : at+size+int(n)]
		at += size + int(n)
		row, rest, ok := cutPrefixed(values)
		if !ok {
			return fmt.Errorf("%w: a block's values", errCheckpoint)
		}
		values = rest
		if err := f(key, row); err != nil {
			return err
		}
	}
	if at != len(keys) || len(values) != 0 {
		return fmt.Errorf("%w: a block has more than its rows", errCheckpoint)
	}
	return nil
}

// fileReader reads a file from its beginning.
type fileReader struct {
	f   vfs.File
	pos int64
}

func (r *fileReader) Read(p []byte) (int, error) {
	n, err := r.f.ReadAt(p, r.pos)
	r.pos += int64(n)
	return n, err
}
