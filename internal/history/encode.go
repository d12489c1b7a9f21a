package history

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// A line is one JSON object. Fields that are empty are left out.
//
//	{"p":3,"f":"txn","o":"ok","s":1700000000000000000,"e":1700000000001000000,
//	 "w":[["orders",0,[17,100,18,101]]],"r":[["in",2,[5,7]]],
//	 "g":"billing","c":[["in",2,6]],"k":[["in",3]],"u":true,"d":true,"z":true}
//
//	p process   f kind of operation   o outcome   s, e start and end
//	w sends, r polls: a run is topic, partition, and offset, value, offset, value ...
//	g group   c offsets: topic, partition, offset   k keys: topic, partition
//	u uncommitted   d retries   z final
//
// The closing brace is the last byte of a line, so that no part of a line is a line.

// AppendLine appends op as a line, with its newline. It fails for an operation that
// could not be read back: a kind or an outcome without a name, text that is not UTF-8.
func AppendLine(b []byte, op *Op) ([]byte, error) {
	if op.Kind == 0 || int(op.Kind) >= len(kindNames) || op.Outcome == 0 || int(op.Outcome) >= len(outcomeNames) {
		return b, fmt.Errorf("history: %v with outcome %v cannot be written", op.Kind, op.Outcome)
	}
	e := encoder{b: b, ok: true}
	e.text(`{"p":`)
	e.int(int64(op.Process))
	e.text(`,"f":"` + kindNames[op.Kind] + `","o":"` + outcomeNames[op.Outcome] + `","s":`)
	e.int(op.Start)
	e.text(`,"e":`)
	e.int(op.End)
	e.runs(`,"w":`, op.Sends)
	e.runs(`,"r":`, op.Polls)
	if op.Group != "" {
		e.text(`,"g":`)
		e.string(op.Group)
	}
	if len(op.Offsets) > 0 {
		e.text(`,"c":`)
		for i, o := range op.Offsets {
			e.open(i)
			e.key(o.Key)
			e.text(`,`)
			e.int(o.Offset)
			e.text(`]`)
		}
		e.text(`]`)
	}
	if len(op.Keys) > 0 {
		e.text(`,"k":`)
		for i, k := range op.Keys {
			e.open(i)
			e.key(k)
			e.text(`]`)
		}
		e.text(`]`)
	}
	for _, flag := range []struct {
		name string
		set  bool
	}{{"u", op.Uncommitted}, {"d", op.Retries}, {"z", op.Final}} {
		if flag.set {
			e.text(`,"` + flag.name + `":true`)
		}
	}
	e.text("}\n")
	if !e.ok {
		return b, fmt.Errorf("history: a name in an operation of process %d is not UTF-8", op.Process)
	}
	return e.b, nil
}

type encoder struct {
	b  []byte
	ok bool
}

func (e *encoder) text(s string) { e.b = append(e.b, s...) }
func (e *encoder) int(n int64)   { e.b = strconv.AppendInt(e.b, n, 10) }

// open begins the i-th element of an array of arrays.
func (e *encoder) open(i int) {
	if i == 0 {
		e.text(`[[`)
	} else {
		e.text(`,[`)
	}
}

func (e *encoder) key(k Key) {
	e.string(k.Topic)
	e.text(`,`)
	e.int(int64(k.Partition))
}

func (e *encoder) runs(name string, runs []Run) {
	if len(runs) == 0 {
		return
	}
	e.text(name)
	for i, run := range runs {
		e.open(i)
		e.key(run.Key)
		e.text(`,[`)
		for j, r := range run.Records {
			if j > 0 {
				e.text(`,`)
			}
			e.int(r.Offset)
			e.text(`,`)
			e.int(r.Value)
		}
		e.text(`]]`)
	}
	e.text(`]`)
}

func (e *encoder) string(s string) {
	e.ok = e.ok && utf8.ValidString(s)
	e.text(`"`)
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			e.b = append(e.b, '\\', c)
		case c < ' ':
			e.b = fmt.Appendf(e.b, `\u%04x`, c)
		default:
			e.b = append(e.b, c)
		}
	}
	e.text(`"`)
}
