package vfs

import (
	"bytes"
	"path"
	"slices"
)

// Kind is what a Choice is asked about.
type Kind uint8

// The questions of a power cut, with their alternatives.
const (
	// KeepEntry asks about one change of a directory since its last SyncDir: 0 it
	// is lost, 1 it took effect.
	KeepEntry Kind = iota
	// KeepSize asks about the size of a file: 0 as last synced, 1 as it was.
	KeepSize
	// KeepSector asks about a sector of 512 bytes that differs from its last sync:
	// 0 as synced, 1 as it was, 2 torn.
	KeepSector
	// KeepByte asks about a byte of a torn sector that differs: 0 as synced, 1 as
	// it was, 2 neither of the two.
	KeepByte
)

// Question is one decision that a power cut makes.
type Question struct {
	Kind Kind
	Name string // the file, or the changed name
	Op   Op     // KeepEntry: what changed it
	Pos  int64  // KeepSector, KeepByte: position in the file
}

// Choice decides what a power cut keeps: it picks one of n alternatives, 0 to n-1.
// For one frozen Mem the questions come in the same order, and depend only on the
// answers before; a Choice that plays back a list can walk through all of them.
type Choice interface {
	Pick(q Question, n int) int
}

// Tearer is a Choice that fills torn sectors itself, faster than byte by byte. It
// may change only those bytes of out where synced and now differ.
type Tearer interface {
	Tear(q Question, synced, now, out []byte)
}

// AfterCrash is the file system as a power cut leaves it: of what was not synced
// every part is kept, lost or torn as the choice says (nil is KeepNone). If m has
// not crashed, it crashes now; it stays as it is and can be asked again.
//
//   - A change of a directory took effect or did not, each for itself. A file
//     whose name is lost is gone.
//   - Each sector that differs from its last sync is old, new or torn. In a torn
//     sector each byte that differs is old, new or something else.
//   - The size is old or new. Bytes past it are gone; where the bytes below it
//     were lost they are zeros.
//   - Pages of a failed sync are old.
//
// The options are those of the new file system; it inherits the sizes and whether
// reads count.
func (m *Mem) AfterCrash(c Choice, opts ...Option) *Mem {
	if c == nil {
		c = KeepNone
	}
	m.crash()
	m.mu.Lock()
	defer m.mu.Unlock()
	to := m.heir()
	w := &afterCrash{to: to, choice: c, files: make([]pair, 0, 16)}
	to.root = w.dir(m.root, "")
	for _, o := range opts {
		o(to)
	}
	return to
}

// crash stops all operations.
func (m *Mem) crash() {
	if m.volatile {
		panic("vfs: a crash of a volatile Mem, which keeps nothing for it")
	}
	m.crashed.Store(true)
}

// AfterKill is the file system as a killed process leaves it: all that was written
// or stored is there, locks are free, and what was not synced still is not. If m
// has not crashed, it crashes now; it stays as it is and can be asked again.
func (m *Mem) AfterKill(opts ...Option) *Mem {
	m.crash()
	m.mu.Lock()
	defer m.mu.Unlock()
	to := m.heir()
	w := &afterKill{to: to, files: map[*memNode]*memNode{}, dirs: map[*memDir]*memDir{}}
	to.root = w.dir(m.root)
	for _, n := range w.files {
		if n.links > 0 {
			to.used.Add(n.blocks)
		} else {
			n.blocks = 0
		}
	}
	for _, o := range opts {
		o(to)
	}
	return to
}

// heir is an empty Mem with the sizes of m.
func (m *Mem) heir() *Mem {
	to := &Mem{crashAt: -1, mapBytes: m.mapBytes, countReads: m.countReads}
	to.capacity.Store(m.capacity.Load())
	return to
}

type pair struct{ from, to *memNode }

type afterCrash struct {
	to     *Mem
	choice Choice
	files  []pair // files already seen: hard links stay links
	above  []*memDir
	nodes  []memNode // allocated together, handed out one by one
	slots  []slot
}

func (w *afterCrash) newNode() *memNode {
	if len(w.nodes) == 0 {
		w.nodes = make([]memNode, 8)
	}
	n := &w.nodes[0]
	w.nodes = w.nodes[1:]
	n.mem = w.to
	return n
}

func (w *afterCrash) newSlots(count int) []slot {
	if count > len(w.slots) {
		w.slots = make([]slot, max(count, 32))
	}
	s := w.slots[:count:count] // growing it later must move it
	w.slots = w.slots[count:]
	return s
}

func join(dir, base string) string {
	if dir == "" {
		return base
	}
	return path.Join(dir, base)
}

func (w *afterCrash) dir(d *memDir, name string) *memDir {
	w.above = append(w.above, d)
	defer func() { w.above = w.above[:len(w.above)-1] }()
	entries := slices.Clone(d.synced)
	for _, c := range d.pending {
		q := Question{Kind: KeepEntry, Op: c.op, Name: join(name, c.set[0].name)}
		if w.choice.Pick(q, 2) == 0 {
			continue
		}
		for _, e := range c.set {
			if e.name != "" {
				entries, _ = put(entries, e)
			}
		}
	}
	// Half of a move may leave a directory below itself; no repair would keep that.
	entries = slices.DeleteFunc(entries, func(e entry) bool { return e.dir != nil && slices.Contains(w.above, e.dir) })
	for i := range entries {
		e := &entries[i]
		if e.dir != nil {
			e.dir = w.dir(e.dir, join(name, e.name))
			continue
		}
		e.file = w.file(e.file, name, e.name)
		e.file.links++
	}
	return &memDir{entries: entries, synced: slices.Clone(entries), modified: d.modified}
}

func (w *afterCrash) file(n *memNode, dir, base string) *memNode {
	for _, p := range w.files {
		if p.from == n {
			return p.to
		}
	}
	to := w.newNode()
	w.files = append(w.files, pair{n, to})
	n.mu.Lock()
	defer n.mu.Unlock()
	to.modified = n.modified
	q := Question{Kind: KeepSize}
	if n.size != n.syncedSize || n.dirty != (span{}) {
		q.Name = join(dir, base)
	}
	size := n.syncedSize
	if n.size != size && w.choice.Pick(q, 2) == 1 {
		size = n.size
	}
	to.slots = w.newSlots(min(int((size+pageSize-1)/pageSize), len(n.slots)))
	for i := range to.slots {
		s := &n.slots[i]
		p := s.disk
		if s.now != s.disk && !s.lost {
			p = w.page(q.Name, int64(i)*pageSize, s.disk, s.now)
		}
		to.slots[i] = slot{now: p, disk: p}
		if p != nil {
			to.blocks++
		}
	}
	w.to.used.Add(to.blocks)
	to.size, to.syncedSize = size, size
	// Sectors kept past a size that is not: the bytes past the end must be zeros.
	if in := int(size % pageSize); in != 0 && n.size != n.syncedSize && len(to.slots) == int(size/pageSize)+1 {
		s := &to.slots[len(to.slots)-1]
		if s.now != nil && s.now != zeroPage && !bytes.Equal(s.now[in:], zeroPage[in:]) {
			clear(s.own()[in:])
			s.disk, s.private = s.now, false
		}
	}
	return to
}

// page mixes the synced and the present bytes of one page.
func (w *afterCrash) page(name string, pos int64, disk, now *page) *page {
	synced, present := disk, now
	if synced == nil {
		synced = zeroPage
	}
	if present == nil {
		present = zeroPage
	}
	const same, old, fresh, torn = 0, 1, 2, 3
	var fates [pageSize / SectorBytes]int
	var count [4]int
	q := Question{Kind: KeepSector, Name: name}
	sector := func(p *page, i int) *[SectorBytes]byte { return (*[SectorBytes]byte)(p[i*SectorBytes:]) }
	for i := range fates {
		if *sector(synced, i) != *sector(present, i) {
			q.Pos = pos + int64(i*SectorBytes)
			fates[i] = old + w.choice.Pick(q, 3)
		}
		count[fates[i]]++
	}
	switch {
	case count[fresh]+count[torn] == 0:
		return disk
	case count[old]+count[torn] == 0:
		return now // shared: the frozen file never writes to it again
	}
	mixed := new(page)
	*mixed = *synced
	for i, fate := range fates {
		switch fate {
		case fresh:
			copy(sector(mixed, i)[:], sector(present, i)[:])
		case torn:
			q.Pos = pos + int64(i*SectorBytes)
			w.tear(q, sector(synced, i)[:], sector(present, i)[:], sector(mixed, i)[:])
		}
	}
	return mixed
}

func (w *afterCrash) tear(q Question, synced, now, dst []byte) {
	if t, ok := w.choice.(Tearer); ok {
		t.Tear(q, synced, now, dst)
		return
	}
	q.Kind = KeepByte
	start := q.Pos
	for i := range dst {
		if synced[i] == now[i] {
			continue
		}
		q.Pos = start + int64(i)
		switch w.choice.Pick(q, 3) {
		case 0:
			dst[i] = synced[i]
		case 1:
			dst[i] = now[i]
		default:
			dst[i] = garbage(synced[i], now[i], 0x5a)
		}
	}
}

// garbage is a byte that is neither of the two.
func garbage(a, b, seed byte) byte {
	for seed == a || seed == b {
		seed++
	}
	return seed
}

type afterKill struct {
	to    *Mem
	files map[*memNode]*memNode
	dirs  map[*memDir]*memDir
}

func (w *afterKill) dir(d *memDir) *memDir {
	if to := w.dirs[d]; to != nil {
		return to
	}
	to := &memDir{modified: d.modified}
	w.dirs[d] = to
	to.entries = w.entries(d.entries)
	for _, e := range to.entries {
		if e.file != nil {
			e.file.links++
		}
	}
	to.synced = w.entries(d.synced)
	to.pending = slices.Clone(d.pending)
	for i := range to.pending {
		for j := range to.pending[i].set {
			w.entry(&to.pending[i].set[j])
		}
	}
	return to
}

func (w *afterKill) entries(from []entry) []entry {
	to := slices.Clone(from)
	for i := range to {
		w.entry(&to[i])
	}
	return to
}

func (w *afterKill) entry(e *entry) {
	if e.dir != nil {
		e.dir = w.dir(e.dir)
	}
	if e.file != nil {
		e.file = w.file(e.file)
	}
}

func (w *afterKill) file(n *memNode) *memNode {
	if to := w.files[n]; to != nil {
		return to
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	to := &memNode{mem: w.to, size: n.size, syncedSize: n.syncedSize, dirty: n.dirty, modified: n.modified}
	to.slots = slices.Clone(n.slots)
	for i := range to.slots {
		to.slots[i].private, to.slots[i].kept = false, false // the pages are the frozen file's too
		if to.slots[i].now != nil {
			to.blocks++
		}
	}
	w.files[n] = to
	return to
}
