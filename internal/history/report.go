package history

import (
	"fmt"
	"strings"
	"time"
)

// Report is what a check found.
type Report struct {
	Anomalies []Anomaly // of each kind that was found, in the order of the kinds
	Figures   Figures
	Torn      []TornLine // lines of files whose recorder was killed while it wrote them
}

// Anomaly is all that was found of one kind.
type Anomaly struct {
	Kind  Kind
	Count int // of cycles: groups of operations that are on cycles with each other
	First []Instance
}

// Instance is one case of an anomaly, with what is needed to look for its cause.
type Instance struct {
	Key     Key // zero of cycles
	Offsets []int64
	Values  []int64
	Ops     []OpRef // those involved, in the order that the kind's rule names them
	Detail  string  // a sentence
}

// OpRef names an operation of the history.
type OpRef struct {
	Index      int // of all operations, in the order of the source
	Process    int32
	Kind       OpKind
	Outcome    Outcome
	Start, End int64
}

func (r OpRef) String() string {
	return fmt.Sprintf("#%d %s %s of process %d [%d, %d]", r.Index, r.Kind, r.Outcome, r.Process, r.Start, r.End)
}

// Count is how many operations, or records, ended in each way.
type Count struct{ OK, Fail, Info int }

func (c *Count) add(o Outcome) {
	switch o {
	case OK:
		c.OK++
	case Fail:
		c.Fail++
	default:
		c.Info++
	}
}

func (c Count) String() string {
	return fmt.Sprintf("%d (%d ok, %d fail, %d info)", c.OK+c.Fail+c.Info, c.OK, c.Fail, c.Info)
}

// Figures say how much a history holds.
type Figures struct {
	Ops     Count
	Kinds   [len(opKinds)]Count // by OpKind
	Sent    Count               // records; those of a transaction have its outcome
	Polled  int                 // records
	Final   int                 // of them by final reads
	Repeats int                 // records at a second offset whose producer Retries

	Processes, Keys, Groups int
	// Proven is how many transactions without an answer happened, as their records show.
	Proven int
	// Lag is the worst time for which a process, when it began an operation that
	// polled, had been behind the end of a key that it was reading. Final reads do not count.
	Lag        time.Duration
	LagKey     Key
	LagProcess int32
}

// opKinds is as long as there are kinds of operation, and one more.
var opKinds [OpFinal + 1]struct{}

// Bad is what was found of kinds that are not allowed.
func (r *Report) Bad() []Anomaly {
	var bad []Anomaly
	for _, a := range r.Anomalies {
		if !a.Kind.Allowed() {
			bad = append(bad, a)
		}
	}
	return bad
}

// Count is how many anomalies of a kind were found.
func (r *Report) Count(k Kind) int {
	for _, a := range r.Anomalies {
		if a.Kind == k {
			return a.Count
		}
	}
	return 0
}

// String is the report for people, several lines.
func (r *Report) String() string {
	var b strings.Builder
	f := &r.Figures
	fmt.Fprintf(&b, "operations: %v by %d processes in %d keys, %d groups\n", f.Ops, f.Processes, f.Keys, f.Groups)
	for k, c := range f.Kinds {
		if c != (Count{}) {
			fmt.Fprintf(&b, "  %s: %v\n", OpKind(k), c)
		}
	}
	fmt.Fprintf(&b, "records sent: %v\n", f.Sent)
	fmt.Fprintf(&b, "records polled: %d, %d of them by final reads\n", f.Polled, f.Final)
	fmt.Fprintf(&b, "transactions without an answer whose records were seen: %d\n", f.Proven)
	if f.Repeats > 0 {
		fmt.Fprintf(&b, "records that came twice from producers that retry: %d\n", f.Repeats)
	}
	fmt.Fprintf(&b, "worst lag: %v", f.Lag)
	if f.Lag > 0 {
		fmt.Fprintf(&b, " of process %d in %v", f.LagProcess, f.LagKey)
	}
	b.WriteByte('\n')
	for _, t := range r.Torn {
		fmt.Fprintf(&b, "torn line: %s:%d\n", t.Path, t.Line)
	}
	if len(r.Bad()) == 0 {
		b.WriteString("no anomalies\n")
	}
	for _, a := range r.Anomalies {
		note := ""
		if a.Kind.Allowed() {
			note = " (allowed)"
		}
		fmt.Fprintf(&b, "%s: %d%s\n", a.Kind, a.Count, note)
		if a.Kind.Allowed() {
			continue // there are many in any history; who wants to look at them finds them in First
		}
		for _, in := range a.First {
			fmt.Fprintf(&b, "  %v\n", in)
		}
	}
	return b.String()
}

func (in Instance) String() string {
	var b strings.Builder
	if in.Key != (Key{}) {
		fmt.Fprintf(&b, "%v: ", in.Key)
	}
	b.WriteString(in.Detail)
	if len(in.Offsets) > 0 {
		fmt.Fprintf(&b, "; offsets %d", in.Offsets)
	}
	if len(in.Values) > 0 {
		fmt.Fprintf(&b, "; values %d", in.Values)
	}
	for _, op := range in.Ops {
		fmt.Fprintf(&b, "\n    %v", op)
	}
	return b.String()
}
