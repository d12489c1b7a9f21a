package main

import (
	"testing"
	"time"
)

func TestMajority(t *testing.T) {
	cut := func(s *state, a, b int) { s.deaf[a][b] = true }
	for _, c := range []struct {
		what string
		harm func(*state)
		want bool
	}{
		{"nothing is wrong", func(*state) {}, true},
		{"one is dead", func(s *state) { s.dead[2] = true }, true},
		{"two are dead", func(s *state) { s.dead[1], s.dead[2] = true, true }, false},
		{"one is dead, another is paused", func(s *state) { s.dead[1], s.paused[3] = true, true }, false},
		{"one disk is full, another slow", func(s *state) { s.full[1], s.slow[3] = true, true }, false},
		{"one loses packets", func(s *state) { s.lossy[1] = true }, true},
		{"all lose packets", func(s *state) { s.lossy[1], s.lossy[2], s.lossy[3] = true, true, true }, false},
		{"one link is cut", func(s *state) { cut(s, 1, 2); cut(s, 2, 1) }, true},
		{"two links are cut", func(s *state) { cut(s, 1, 2); cut(s, 2, 1); cut(s, 1, 3); cut(s, 3, 1) }, true},
		{"three links are cut one way", func(s *state) { cut(s, 1, 2); cut(s, 2, 3); cut(s, 3, 1) }, false},
		{"one is dead, the others hear each other one way", func(s *state) { s.dead[3] = true; cut(s, 1, 2) }, false},
	} {
		var s state
		c.harm(&s)
		if got := s.majority(); got != c.want {
			t.Errorf("%s: majority %t, want %t", c.what, got, c.want)
		}
	}
}

// at is a time of a made-up run, in seconds from its begin.
func at(seconds float64) time.Time {
	return time.Unix(1_700_000_000, 0).Add(time.Duration(seconds * float64(time.Second)))
}

func times(seconds ...float64) (list []time.Time) {
	for _, s := range seconds {
		list = append(list, at(s))
	}
	return list
}

func TestDuties(t *testing.T) {
	for _, c := range []struct {
		what    string
		moments []moment
		want    []span
	}{
		{"all the time", []moment{{at(0), true}}, []span{{at(0), at(60)}}},
		{"never", []moment{{at(0), false}}, nil},
		{"another majority is the same duty", []moment{{at(0), true}, {at(5), true}, {at(6), true}}, []span{{at(0), at(60)}}},
		{"away and back", []moment{{at(0), true}, {at(5), false}, {at(6), false}, {at(9), true}}, []span{{at(0), at(5)}, {at(9), at(60)}}},
		{"away at once", []moment{{at(0), true}, {at(0), false}, {at(9), true}}, []span{{at(9), at(60)}}},
		{"away in the end", []moment{{at(0), true}, {at(50), false}}, []span{{at(0), at(50)}}},
	} {
		got := duties(c.moments, at(60))
		if !sameSpans(got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

func TestGaps(t *testing.T) {
	for _, c := range []struct {
		what string
		duty []span
		acks []time.Time
		want span // the longest
	}{
		{"between two", []span{{at(0), at(20)}}, times(1, 2, 13, 14, 19), span{at(2), at(13)}},
		{"from the begin", []span{{at(0), at(20)}}, times(11, 15), span{at(0), at(11)}},
		{"to the end", []span{{at(0), at(20)}}, times(1, 8.5), span{at(8.5), at(20)}},
		{"none at all", []span{{at(0), at(20)}}, nil, span{at(0), at(20)}},
		{"only outside", []span{{at(5), at(20)}}, times(1, 4, 21), span{at(5), at(20)}},
		{"what nobody owed does not count", []span{{at(0), at(5)}, {at(20), at(25)}}, times(1, 4, 21, 24), span{at(1), at(4)}},
		{"a gap does not go on behind a duty", []span{{at(0), at(9)}, {at(10), at(19)}}, nil, span{at(0), at(9)}},
	} {
		if got := gaps(c.duty, c.acks)[0]; got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

func sameSpans(a, b []span) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
