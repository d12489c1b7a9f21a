package vfs

import "math/rand/v2"

// KeepNone loses everything that was not synced; KeepAll keeps it, as a kill does.
var (
	KeepNone Choice = always(0)
	KeepAll  Choice = always(1)
)

type always int

func (a always) Pick(Question, int) int { return int(a) }

// ChoiceFunc is a Choice made of a function.
type ChoiceFunc func(q Question, n int) int

// Pick calls f.
func (f ChoiceFunc) Pick(q Question, n int) int { return f(q, n) }

// Bits keeps what its bits say: the i-th question takes the new state where bit i
// of mask is set, the old one elsewhere, and past the 64th. Nothing is torn.
func Bits(mask uint64) Choice {
	return ChoiceFunc(func(Question, int) int {
		pick := int(mask & 1)
		mask >>= 1
		return pick
	})
}

// Random decides by a seed, alike for alike file systems. For each power cut it
// first draws how much is lost, so that the extremes occur too.
func Random(seed uint64) Choice {
	r := &random{rng: *rand.NewPCG(seed, seed^0x9e3779b97f4a7c15)}
	r.keep = [...]uint64{128, 16, 240, 0, 255}[r.rng.Uint64()%5]
	return r
}

type random struct {
	rng  rand.PCG
	keep uint64 // of 256, how much is kept
}

func (r *random) Pick(_ Question, n int) int {
	v := r.rng.Uint64()
	if n == 3 && v>>32&7 == 0 {
		return 2
	}
	if v&255 < r.keep {
		return 1
	}
	return 0
}

// Tear cuts the sector at a byte, or mixes it byte by byte.
func (r *random) Tear(_ Question, synced, now, out []byte) {
	v := r.rng.Uint64()
	cut := int(v >> 8 % SectorBytes)
	style := v & 3
	for i := range out {
		if synced[i] == now[i] {
			continue
		}
		fate := uint64(0)
		switch style {
		case 0: // new up to the cut
			if i < cut {
				fate = 1
			}
		case 1: // new from the cut on
			if i >= cut {
				fate = 1
			}
		case 2: // garbage from the cut on
			fate = 1
			if i >= cut {
				fate = 2
			}
		case 3: // anything
			v = v*6364136223846793005 + 1442695040888963407
			fate = v >> 60 % 3
		}
		switch fate {
		case 0:
			out[i] = synced[i]
		case 1:
			out[i] = now[i]
		default:
			out[i] = garbage(synced[i], now[i], byte(v>>24)+byte(i))
		}
	}
}

// Walk is a Choice that goes through every combination of answers:
//
//	for w := vfs.NewWalk(); w.Next(); {
//		m := crashed.AfterCrash(w)
//	}
//
// It is for small cases: a torn sector multiplies the combinations by 3 for each
// of its bytes that differ. Limit says how many alternatives of a question of the
// kind are tried; without it, all.
type Walk struct {
	Limit func(k Kind, n int) int

	picks   []int // the answers of this round
	choices []int // how many there were of each
	at      int
	started bool
}

// NewWalk is a Walk at its beginning.
func NewWalk() *Walk { return &Walk{} }

// Next starts the next combination. It is false after the last.
func (w *Walk) Next() bool {
	if !w.started {
		w.started = true
		return true
	}
	w.at = 0
	for len(w.picks) > 0 {
		last := len(w.picks) - 1
		w.picks[last]++
		if w.picks[last] < w.choices[last] {
			return true
		}
		w.picks, w.choices = w.picks[:last], w.choices[:last]
	}
	return false
}

// Pick plays the round's answers, and 0 for a question that is new in it.
func (w *Walk) Pick(q Question, n int) int {
	if w.Limit != nil {
		n = w.Limit(q.Kind, n)
	}
	if w.at == len(w.picks) {
		w.picks, w.choices = append(w.picks, 0), append(w.choices, n)
	}
	w.at++
	return w.picks[w.at-1]
}
