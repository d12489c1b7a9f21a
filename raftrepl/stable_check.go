package raftrepl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"

	"github.com/x/embedlog/log"
)

// The file of raft-boltdb is bbolt's: pages, two of which say where the others are, each with a
// checksum of its own; the newer one counts. The others form a tree, and a list of those that are
// free. Nothing else has a checksum, and the library trusts it: it panics, or takes an old
// page for a new one. So the file is looked at before it is opened. Format: bbolt, version 2.
//
//	page     8 number  2 kind  2 count  4 how many pages more; then count elements
//	meta     4 magic  4 version  4 page size  4 flags  16 root bucket  8 free list  8 pages  8 transaction  8 FNV-1a
//	branch   4 place of the key, from here  4 its size  8 page
//	leaf     4 flags (1 is a bucket)  4 place of the key, from here  4 its size  4 that of the value
//	bucket   8 page of its root; 0 is a page that follows  8 sequence
//	free     count numbers of pages, 8 each
const (
	boltHeader   = 16
	boltMagic    = 0xED0CDAED
	boltChecksum = 56 // bytes of a meta before it
	boltElement  = 16

	boltBranch = 1
	boltLeaf   = 2
	boltFree   = 16

	// maxBoltBytes bounds what is read at once; a node's file is a few MiB with 10,000 groups.
	maxBoltBytes = 1 << 30
)

// boltCheck is one look at a file.
type boltCheck struct {
	b        []byte
	pageSize int
	pages    uint64 // that are in use or free
	seen     map[uint64]bool
}

// checkBolt says whether every page of the file is where it should be, so that the library takes none for another.
// What keys and values hold is not looked at. A file that is not there, or empty, is for the library to make.
func checkBolt(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil
	}
	if err == nil && info.Size() > maxBoltBytes {
		err = fmt.Errorf("%d bytes: %w", info.Size(), log.ErrCorrupt)
	}
	if err != nil {
		return err
	}
	c := boltCheck{seen: make(map[uint64]bool)}
	if c.b, err = os.ReadFile(path); err != nil {
		return err
	}
	if err := c.run(); err != nil {
		return fmt.Errorf("%w: %w", log.ErrCorrupt, err)
	}
	return nil
}

func (c *boltCheck) run() error {
	var metas [2][]byte
	ne := binary.NativeEndian
	for i := range metas {
		at := i*c.pageSize + boltHeader
		if at+boltChecksum+8 > len(c.b) {
			return fmt.Errorf("page %d is missing", i)
		}
		m := c.b[at:]
		sum := fnv.New64a()
		sum.Write(m[:boltChecksum])
		if ne.Uint32(m) != boltMagic || ne.Uint64(m[boltChecksum:]) != sum.Sum64() {
			return fmt.Errorf("page %d", i)
		}
		metas[i], c.pageSize = m, int(ne.Uint32(m[8:]))
	}
	// Each is written within a sector of the disk, so a crash leaves it old or new, never torn.
	older, newer := metas[0], metas[1]
	if ne.Uint64(older[48:]) > ne.Uint64(newer[48:]) {
		older, newer = newer, older
	}
	txid := ne.Uint64(newer[48:])
	if ne.Uint64(older[48:])+1 != txid {
		return fmt.Errorf("transactions %d and %d do not follow each other", ne.Uint64(older[48:]), txid)
	}
	if c.pages = ne.Uint64(newer[40:]); c.pages < 4 || c.pages > uint64(len(c.b)/c.pageSize) {
		return fmt.Errorf("%d pages in %d bytes", c.pages, len(c.b))
	}
	c.seen[0], c.seen[1] = true, true
	buckets, err := c.tree(ne.Uint64(newer[16:]), 0)
	if err != nil {
		return err
	}
	if want := []string{"conf", "logs"}; txid > 1 && !equalKeys(buckets, want) {
		return fmt.Errorf("the buckets are %q, not %q", buckets, want)
	}
	return c.free(ne.Uint64(newer[32:]))
}

func equalKeys(have [][]byte, want []string) bool {
	for i := range have {
		if len(have) != len(want) || string(have[i]) != want[i] {
			return false
		}
	}
	return len(have) == len(want)
}

// page is a page with those that belong to it, none of which was seen before.
func (c *boltCheck) page(n uint64, kind uint16) ([]byte, error) {
	if n >= c.pages {
		return nil, fmt.Errorf("page %d of %d", n, c.pages)
	}
	b := c.b[n*uint64(c.pageSize):]
	more := uint64(binary.NativeEndian.Uint32(b[12:]))
	if id := binary.NativeEndian.Uint64(b); id != n || binary.NativeEndian.Uint16(b[8:])&^kind != 0 || n+more >= c.pages {
		return nil, fmt.Errorf("page %d says %d, kind %d, %d more", n, id, binary.NativeEndian.Uint16(b[8:]), more)
	}
	for i := n; i <= n+more; i++ {
		if c.seen[i] {
			return nil, fmt.Errorf("page %d is there twice", i)
		}
		c.seen[i] = true
	}
	return b[:(more+1)*uint64(c.pageSize)], nil
}

// tree looks at the pages of a bucket, and returns the keys in its leaves.
func (c *boltCheck) tree(root uint64, depth int) (keys [][]byte, err error) {
	b, err := c.page(root, boltBranch|boltLeaf)
	if err == nil {
		keys, err = c.elements(b, root, depth)
	}
	if err != nil {
		return nil, err
	}
	for i := 1; i < len(keys); i++ {
		if bytes.Compare(keys[i-1], keys[i]) >= 0 {
			return nil, fmt.Errorf("page %d: keys %x and %x", root, keys[i-1], keys[i])
		}
	}
	return keys, nil
}

func (c *boltCheck) elements(b []byte, page uint64, depth int) (keys [][]byte, err error) {
	ne := binary.NativeEndian
	bad := fmt.Errorf("page %d does not hold what it says", page)
	kind, count := ne.Uint16(b[8:]), int(ne.Uint16(b[10:]))
	if depth > 16 || kind != boltLeaf && kind != boltBranch || boltHeader+count*boltElement > len(b) || kind == boltBranch && count == 0 {
		return nil, bad
	}
	next := boltHeader + count*boltElement // where the next key lies: they follow each other without a gap
	for i := range count {
		at := boltHeader + i*boltElement
		e := b[at:]
		pos, ksize, vsize, bucket := uint64(ne.Uint32(e)), uint64(ne.Uint32(e[4:])), uint64(0), false
		if kind == boltLeaf {
			if ne.Uint32(e)&^1 != 0 {
				return nil, bad
			}
			bucket = ne.Uint32(e) == 1
			pos, ksize, vsize = uint64(ne.Uint32(e[4:])), uint64(ne.Uint32(e[8:])), uint64(ne.Uint32(e[12:]))
		}
		if uint64(at)+pos != uint64(next) || uint64(next)+ksize+vsize > uint64(len(b)) {
			return nil, bad
		}
		key, value := b[next:][:ksize], b[uint64(next)+ksize:][:vsize]
		next += int(ksize + vsize)
		switch {
		case kind == boltBranch:
			below, err := c.tree(ne.Uint64(e[8:]), depth+1)
			if err != nil {
				return nil, err
			}
			if len(below) == 0 || !bytes.Equal(below[0], key) {
				return nil, bad
			}
			keys = append(keys, below...)
			continue
		case bucket && vsize < 16:
			return nil, bad
		case bucket && ne.Uint64(value) != 0:
			_, err = c.tree(ne.Uint64(value), depth+1)
		case bucket:
			if len(value) < 16+boltHeader {
				return nil, bad
			}
			_, err = c.elements(value[16:], page, depth+1)
		}
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// free looks at the list of free pages: with it all pages are seen, each once.
func (c *boltCheck) free(list uint64) error {
	b, err := c.page(list, boltFree)
	if err != nil {
		return err
	}
	ne := binary.NativeEndian
	count, at := uint64(ne.Uint16(b[10:])), uint64(boltHeader)
	if count == 0xFFFF {
		count, at = ne.Uint64(b[at:]), at+8
	}
	if ne.Uint16(b[8:]) != boltFree || count > (uint64(len(b))-at)/8 {
		return fmt.Errorf("page %d does not hold what it says", list)
	}
	for i := range count {
		n := ne.Uint64(b[at+8*i:])
		if n >= c.pages || c.seen[n] {
			return fmt.Errorf("page %d is said to be free", n)
		}
		c.seen[n] = true
	}
	if uint64(len(c.seen)) != c.pages {
		return fmt.Errorf("%d pages of %d are in use or free", len(c.seen), c.pages)
	}
	return nil
}
