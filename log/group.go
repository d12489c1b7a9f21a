package log

// lendBytes is from how many bytes on a batch's records are written from where they
// lie. A smaller batch is copied beside its neighbours, which costs less than a piece of
// a vector does (BenchmarkWritev of internal/vfs: 8 KiB by vector take 10 to 15 % less
// time, 4 KiB 8 to 10 % more). Tests change it.
var lendBytes = 8 << 10

// group is the frames that are staged: bytes of its own and, between them, records
// that stay with their owners until the group is written.
//
//	own    |frame head, batch head|frame head, small batch, frame head, batch head|
//	lent                          ^ records                                       ^ records
type group struct {
	own  []byte
	lent []loan
	size int      // of all of it
	list [][]byte // the memory of pieces
}

// loan is bytes that belong in front of the own ones from at on.
type loan struct {
	at    int
	bytes []byte
}

// add makes own, and what is lent behind it, the group.
func (g *group) add(own, lent []byte) {
	g.size += len(own) - len(g.own) + len(lent)
	g.own = own
	if len(lent) > 0 {
		g.lent = append(g.lent, loan{len(own), lent})
	}
}

// pieces is what is to be written, one behind the other. It is good until the next call
// of a method.
func (g *group) pieces() [][]byte {
	g.list = g.list[:0]
	from := 0
	for _, l := range g.lent {
		g.list = append(g.list, g.own[from:l.at], l.bytes)
		from = l.at
	}
	if from < len(g.own) {
		g.list = append(g.list, g.own[from:])
	}
	return g.list
}

// reset empties the group, and lets go of what is not its own.
func (g *group) reset() {
	clear(g.lent)
	clear(g.list)
	g.own, g.lent, g.list, g.size = g.own[:0], g.lent[:0], g.list[:0], 0
	if cap(g.own) > 2*MaxGroupBytes {
		g.own = nil // one huge batch must not be remembered for ever
	}
}
