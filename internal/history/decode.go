package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"
)

// ErrTorn says of a line that it stops in the middle: its writer was killed, or has
// not written the rest yet.
var ErrTorn = errors.New("history: line is torn")

// SyntaxError says where in a line something stands that no writer writes.
type SyntaxError struct {
	Position int // byte of the line, from 0
	Problem  string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("history: byte %d of the line: %s", e.Position, e.Problem)
}

// Decoder reads lines. It keeps each topic and group that it met, so that they are
// not made again. It is not safe for concurrent use; the zero value is ready.
type Decoder struct {
	line  []byte
	at    int
	names map[string]string
}

// Decode reads one line, without its newline, into op, whose slices it uses again.
// The error matches ErrTorn when the line is the beginning of one, and is a
// *SyntaxError when it is none. What is decoded takes memory in proportion to the line.
func (d *Decoder) Decode(line []byte, op *Op) error {
	d.line, d.at = line, 0
	*op = Op{Sends: op.Sends[:0], Polls: op.Polls[:0], Offsets: op.Offsets[:0], Keys: op.Keys[:0]}
	if err := d.expect('{'); err != nil {
		return err
	}
	var seen [256]bool
	for end := false; !end; {
		name, err := d.fieldName()
		if err != nil {
			return err
		}
		if seen[name] {
			return d.fail("a field for the second time")
		}
		seen[name] = true
		if err := d.field(name, op); err != nil {
			return err
		}
		if end, err = d.either(',', '}'); err != nil {
			return err
		}
	}
	if d.peek() != 0 || d.at < len(d.line) {
		return d.fail("something behind the closing brace")
	}
	if op.Kind == 0 || op.Outcome == 0 || !seen['p'] {
		return d.fail("a line without process, kind or outcome")
	}
	return nil
}

func (d *Decoder) field(name byte, op *Op) (err error) {
	switch name {
	case 'p':
		op.Process, err = d.int32()
	case 'f':
		var i int
		i, err = d.oneOf(kindNames)
		op.Kind = OpKind(i)
	case 'o':
		var i int
		i, err = d.oneOf(outcomeNames)
		op.Outcome = Outcome(i)
	case 's':
		op.Start, err = d.int()
	case 'e':
		op.End, err = d.int()
	case 'w':
		op.Sends, err = d.runs(op.Sends)
	case 'r':
		op.Polls, err = d.runs(op.Polls)
	case 'g':
		op.Group, err = d.string()
	case 'c':
		err = d.array(func() error {
			op.Offsets = append(op.Offsets, Offset{})
			o := &op.Offsets[len(op.Offsets)-1]
			return d.tuple(&o.Key, func() (err error) {
				o.Offset, err = d.int()
				return err
			})
		})
	case 'k':
		err = d.array(func() error {
			op.Keys = append(op.Keys, Key{})
			return d.tuple(&op.Keys[len(op.Keys)-1], nil)
		})
	case 'u':
		op.Uncommitted, err = d.bool()
	case 'd':
		op.Retries, err = d.bool()
	case 'z':
		op.Final, err = d.bool()
	default:
		err = d.fail("a field without meaning")
	}
	return err
}

func (d *Decoder) runs(runs []Run) ([]Run, error) {
	err := d.array(func() error {
		if len(runs) < cap(runs) {
			runs = runs[:len(runs)+1] // with the records of an earlier line, whose memory is used again
		} else {
			runs = append(runs, Run{})
		}
		run := &runs[len(runs)-1]
		run.Records = run.Records[:0]
		return d.tuple(&run.Key, func() error {
			half := false
			err := d.array(func() error {
				n, err := d.int()
				if half = !half; half {
					run.Records = append(run.Records, Record{Offset: n})
				} else {
					run.Records[len(run.Records)-1].Value = n
				}
				return err
			})
			if err == nil && half {
				return d.fail("an offset without a value")
			}
			return err
		})
	})
	return runs, err
}

// tuple reads [topic, partition] and, when there is more, a third element.
func (d *Decoder) tuple(k *Key, third func() error) (err error) {
	if err := d.expect('['); err != nil {
		return err
	}
	if k.Topic, err = d.string(); err != nil {
		return err
	}
	if err := d.expect(','); err != nil {
		return err
	}
	if k.Partition, err = d.int32(); err != nil {
		return err
	}
	if third != nil {
		if err := d.expect(','); err != nil {
			return err
		}
		if err := third(); err != nil {
			return err
		}
	}
	return d.expect(']')
}

func (d *Decoder) array(element func() error) error {
	if err := d.expect('['); err != nil {
		return err
	}
	if d.peek() == ']' {
		d.at++
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		end, err := d.either(',', ']')
		if err != nil || end {
			return err
		}
	}
}

// peek is the next byte that is no space, or 0 at the end.
func (d *Decoder) peek() byte {
	for d.at < len(d.line) {
		switch c := d.line[d.at]; c {
		case ' ', '\t', '\r':
			d.at++
		default:
			return c
		}
	}
	return 0
}

// next is peek for what has to come: the end of the line is then a tear.
func (d *Decoder) next() (byte, error) {
	c := d.peek()
	if c == 0 && d.at >= len(d.line) {
		return 0, ErrTorn
	}
	return c, nil
}

func (d *Decoder) expect(want byte) error {
	c, err := d.next()
	if err != nil {
		return err
	}
	if c != want {
		return d.fail(fmt.Sprintf("%q, where %q has to be", c, want))
	}
	d.at++
	return nil
}

// either reads one of two bytes, and says whether it was the second.
func (d *Decoder) either(a, b byte) (second bool, err error) {
	c, err := d.next()
	if err != nil {
		return false, err
	}
	if c != a && c != b {
		return false, d.fail(fmt.Sprintf("%q, where %q or %q has to be", c, a, b))
	}
	d.at++
	return c == b, nil
}

// fieldName reads a name, which is one letter, and the colon.
func (d *Decoder) fieldName() (byte, error) {
	name, err := d.quoted()
	if err != nil {
		return 0, err
	}
	if len(name) != 1 {
		return 0, d.fail("a field whose name is not one letter")
	}
	return name[0], d.expect(':')
}

func (d *Decoder) int() (int64, error) {
	if _, err := d.next(); err != nil {
		return 0, err
	}
	start := d.at
	negative := d.line[d.at] == '-'
	if negative {
		d.at++
	}
	first := d.at
	var n uint64
	for d.at < len(d.line) && d.line[d.at] >= '0' && d.line[d.at] <= '9' {
		if n > math.MaxInt64/10 {
			return 0, d.fail("a number that is too large")
		}
		n = 10*n + uint64(d.line[d.at]-'0')
		d.at++
	}
	limit := uint64(math.MaxInt64)
	if negative {
		limit++
	}
	switch {
	case d.at == len(d.line):
		return 0, ErrTorn // a number is never the last thing of a line
	case d.at == first:
		d.at = start
		return 0, d.fail("no number")
	case d.line[first] == '0' && d.at > first+1:
		return 0, d.fail("a number that begins with 0")
	case n > limit:
		return 0, d.fail("a number that is too large")
	}
	if negative {
		return int64(-n), nil
	}
	return int64(n), nil
}

func (d *Decoder) int32() (int32, error) {
	n, err := d.int()
	if err == nil && (n < math.MinInt32 || n > math.MaxInt32) {
		err = d.fail("a number that is too large")
	}
	return int32(n), err
}

func (d *Decoder) bool() (bool, error) {
	if _, err := d.next(); err != nil {
		return false, err
	}
	for _, word := range []string{"true", "false"} {
		rest := d.line[d.at:]
		n := min(len(rest), len(word))
		if string(rest[:n]) != word[:n] {
			continue
		}
		if n < len(word) {
			return false, ErrTorn
		}
		d.at += n
		return word == "true", nil
	}
	return false, d.fail("neither true nor false")
}

func (d *Decoder) oneOf(names []string) (int, error) {
	text, err := d.quoted()
	if err != nil {
		return 0, err
	}
	for i, name := range names {
		if i > 0 && string(text) == name {
			return i, nil
		}
	}
	return 0, d.fail(fmt.Sprintf("%.20q, which is none of %q", text, names[1:]))
}

// string reads a string and keeps it for the next time.
func (d *Decoder) string() (string, error) {
	text, err := d.quoted()
	if err != nil {
		return "", err
	}
	if s, ok := d.names[string(text)]; ok {
		return s, nil
	}
	if d.names == nil || len(d.names) >= 1<<16 { // no history has so many; memory stays bounded
		d.names = map[string]string{}
	}
	s := string(text)
	d.names[s] = s
	return s, nil
}

// quoted reads a string. The bytes are valid until the next line.
func (d *Decoder) quoted() ([]byte, error) {
	if err := d.expect('"'); err != nil {
		return nil, err
	}
	start, escaped := d.at, false
	for ; ; d.at++ {
		if d.at >= len(d.line) {
			return nil, ErrTorn
		}
		c := d.line[d.at]
		if c == '"' {
			break
		}
		if c == '\\' {
			escaped = true
			d.at++ // whatever it is, it does not end the string
		}
	}
	text := d.line[start:d.at]
	d.at++
	if !utf8.Valid(text) {
		return nil, d.fail("text that is not UTF-8")
	}
	if !escaped && !slices.ContainsFunc(text, func(c byte) bool { return c < ' ' }) {
		return text, nil
	}
	// Rare: names have no such bytes. Strings with escapes are left to who knows them all.
	var s string
	if err := json.Unmarshal(d.line[start-1:d.at], &s); err != nil {
		return nil, d.fail(fmt.Sprintf("a string that cannot be: %v", err))
	}
	return []byte(s), nil
}

func (d *Decoder) fail(problem string) error { return &SyntaxError{d.at, problem} }
