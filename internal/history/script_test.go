package history

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// parseScript makes a history of lines that people read:
//
//	1 send ok     a 5=10 6=11 b ?=20        process, kind, outcome, key, offset=value ...
//	2 poll ok     a 5=10                    a is partition 0 of topic a; a/1 another one
//	3 txn info    send a ?=12 poll b 0=20 commit g b 1 moved c
//	2 assign ok   a b                       also subscribe, rebalance, final; with in=g
//	2 seek ok     a 3 b 0
//	2 commit ok   in=g a 7                  also reset, committed
//	2 crash ok
//
// ? is NoOffset, ! is Unanswered, x is Refused. Words with a meaning anywhere:
// uncommitted, retries, final, in=GROUP, from=START, to=END. Without times, an
// operation begins after the end of the one above.
func parseScript(t *testing.T, script string) History {
	t.Helper()
	var h History
	clock := int64(0)
	for line := range strings.Lines(script) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) < 3 {
			t.Fatalf("line %q: want process, kind, outcome", line)
		}
		op := Op{Process: int32(number(t, words[0])), Start: clock + 1, End: clock + 2}
		for i, name := range kindNames {
			if i > 0 && name == words[1] {
				op.Kind = OpKind(i)
			}
		}
		for i, name := range outcomeNames {
			if i > 0 && name == words[2] {
				op.Outcome = Outcome(i)
			}
		}
		mode, key := words[1], Key{}
		for _, w := range words[3:] {
			name, value, pair := strings.Cut(w, "=")
			switch {
			case w == "uncommitted":
				op.Uncommitted = true
			case w == "retries":
				op.Retries = true
			case w == "final":
				op.Final = true
			case pair && name == "in":
				op.Group = value
			case pair && name == "from":
				op.Start = number(t, value)
			case pair && name == "to":
				op.End = number(t, value)
			case op.Kind == OpTxn && (w == "send" || w == "poll" || w == "commit" || w == "moved"):
				mode = w
			case pair:
				r := Record{Value: number(t, value)}
				switch name {
				case "?":
					r.Offset = NoOffset
				case "!":
					r.Offset = Unanswered
				case "x":
					r.Offset = Refused
				default:
					r.Offset = number(t, name)
				}
				runs := &op.Sends
				if mode == "poll" {
					runs = &op.Polls
				}
				if n := len(*runs); n == 0 || (*runs)[n-1].Key != key {
					*runs = append(*runs, Run{Key: key})
				}
				run := &(*runs)[len(*runs)-1]
				run.Records = append(run.Records, r)
			case strings.ContainsAny(w[:1], "0123456789-"):
				op.Offsets = append(op.Offsets, Offset{key, number(t, w)})
			default:
				topic, part, _ := strings.Cut(w, "/")
				key = Key{Topic: topic}
				if part != "" {
					key.Partition = int32(number(t, part))
				}
				switch mode {
				case "assign", "subscribe", "rebalance", "reset", "final", "moved":
					op.Keys = append(op.Keys, key)
				}
			}
		}
		clock = max(clock, op.End)
		h = append(h, op)
	}
	return h
}

func number(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// found is the kinds that a report has, with their counts: "lost-write poll-skip:2".
func found(r *Report) string {
	var names []string
	for _, a := range r.Anomalies {
		name := a.Kind.String()
		if a.Count > 1 {
			name += fmt.Sprintf(":%d", a.Count)
		}
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

func check(t *testing.T, src Source, opts *Options) *Report {
	t.Helper()
	r, err := Check(src, opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
